"""Tasks ask what their sequences tell; every kind of model is of one size and learns an easy one."""

from __future__ import annotations

import pytest
import torch

from hope_serve.training.mad.models import KINDS, make_model, num_parameters
from hope_serve.training.mad.tasks import IGNORED, Compression, Copying, Recall
from hope_serve.training.mad.train import Budget, train

TASKS = (Recall(), Copying(), Compression())


def drawn(task, rows=5, seed=3):
    return task.batch(rows, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_same_seed_draws_the_same_ids_all_in_the_vocabulary(task):
    batch, again = drawn(task), drawn(task)
    assert torch.equal(batch.inputs, again.inputs)
    assert torch.equal(batch.targets, again.targets)
    assert batch.inputs.shape == batch.targets.shape
    assert 0 <= int(batch.inputs.min())
    assert int(batch.inputs.max()) < task.vocab_size
    assert int(batch.targets[batch.targets != IGNORED].max()) < task.vocab_size


def test_recall_asks_every_key_for_its_value_once():
    batch = drawn(Recall(pairs=4, keys=9, values=5))
    for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        told = dict(zip(inputs[0:8:2], inputs[1:8:2], strict=True))
        asked = {inputs[at]: target for at, target in enumerate(targets) if target != IGNORED}
        assert asked == told
        assert len(told) == 4


def test_copying_asks_for_the_data_in_their_order():
    task = Copying(data=3, length=8, symbols=5)
    for inputs, targets in zip(*(part.tolist() for part in drawn(task)), strict=True):
        assert [i for i in inputs[:8] if i < 5] == targets[8:]
        assert set(targets[:8]) == {IGNORED}
        assert set(inputs[8:]) == {6}


def test_more_than_fits_is_refused():
    with pytest.raises(ValueError, match="pairs is 5"):
        Recall(pairs=5, keys=4)
    with pytest.raises(ValueError, match="data is 9"):
        Copying(data=9, length=8)
    with pytest.raises(ValueError, match="seconds is 0"):
        Budget(seconds=0)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_kind_has_about_the_same_size(task):
    sizes = [num_parameters(make_model(kind, task)) for kind in KINDS]
    assert max(sizes) / min(sizes) < 1.12


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_depends_on_what_is_asked_from(kind, task):
    """Squeezed tasks answer from the last vector alone; the others never look ahead."""
    torch.manual_seed(0)
    model = make_model(kind, task)
    batch = drawn(task, rows=1)
    changed = batch.inputs.clone()
    changed[:, -1] = (changed[:, -1] + 1) % task.vocab_size
    with torch.no_grad():
        before, after = model(batch.inputs), model(changed)
    same = torch.allclose(before[:, :-1], after[:, :-1], atol=1e-5)
    assert same != task.squeezed


@pytest.mark.parametrize("kind", KINDS)
def test_an_easy_task_is_learned(kind):
    outcome = train(kind, Copying(data=1, length=2, symbols=3), Budget(seconds=3600.0, rows=16, steps=60), seed=1)
    assert outcome.accuracy > 0.5
    assert outcome.steps == 60
    assert len(outcome.curve) == 12
    assert outcome.curve[-1][1] == outcome.accuracy
