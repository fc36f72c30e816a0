"""What an engine computes before anybody waits covers every kind of work, and leaves nothing behind."""

from __future__ import annotations

import pytest
import torch
from support.attention_checkpoint import converted, write_part
from support.tiny_model import tiny_model

from hope_serve.engine import teaching as teaching_room
from hope_serve.engine.pools import Pools
from hope_serve.engine.practice import practise_lessons
from hope_serve.engine.runner import WARM_COUNTS, WARM_LENGTHS, Runner
from hope_serve.engine.segments import Segments, unpadded
from hope_serve.engine.teaching import Teaching
from hope_serve.model.load import load_model
from hope_serve.model.serving.model import ServedModel
from hope_serve.model.serving.precision import Precision


@pytest.fixture(scope="module")
def attention(tmp_path_factory):
    folder = converted(tmp_path_factory.mktemp("base"))[0]
    return load_model(folder, write_part(folder.parent / "part.safetensors", folder)).model


def served(model):
    return ServedModel(model, device="cpu", precision=Precision.of(model.config, "cpu"))


@pytest.mark.parametrize("poison", [False, True])
def test_lessons_of_every_kind_are_practised_and_nothing_of_them_stays(monkeypatch, poison):
    segments, updates, rereads = [], [], []
    gradients, update, reread = Segments.gradients, teaching_room.update_level, Teaching._reread
    monkeypatch.setattr(Segments, "gradients", lambda s, rows: segments.append(rows.lengths) or gradients(s, rows))
    monkeypatch.setattr(
        teaching_room, "update_level", lambda *args: updates.append(bool(args[4].any())) or update(*args)
    )
    monkeypatch.setattr(Teaching, "_reread", lambda s, *args: rereads.append(len(args[0])) or reread(s, *args))
    teaching = Teaching(served(tiny_model()), 3, alone=False, poison=poison)
    slabs = [teaching._learned, teaching._state, teaching._reads]
    before, free = [slab.rows.clone() for slab in slabs], list(teaching._free)
    practise_lessons(teaching)
    assert [slab.rows.equal(was) for slab, was in zip(slabs, before, strict=True)] == [True] * 3
    assert teaching._free == free
    whole = teaching.cadence.room()
    assert {tuple(lengths) for lengths in segments} == {(n,) * count for count in (1, 2, 3) for n in (whole, 1)}
    assert set(updates) == {True, False} and set(rereads) == {1, 2, 3}


def test_lessons_of_attention_are_practised_too(attention):
    teaching = Teaching(served(attention), 2, alone=False)
    practise_lessons(teaching)
    assert not teaching._state.lengths.any() and not teaching._learned.rows.any()


@pytest.mark.parametrize("kind", ["titans", "attention"])
def test_prompts_of_every_kind_are_practised_in_nobodys_slot(monkeypatch, kind, attention):
    model, shapes = served(attention if kind == "attention" else tiny_model()), set()
    run = model.run
    monkeypatch.setattr(
        model, "run", lambda batch, *args: shapes.add((len(batch.slots), len(batch.tokens))) or run(batch, *args)
    )
    pools = Pools(model, 2)
    kept = (pools.delta_rows.rows, pools.last_token, pools.sampling.counts, pools.sampling.position)
    before, state = [t.clone() for t in kept], [pools.state.save(slot).clone() for slot in (1, 2)]
    Runner(model, pools, deterministic=False).warm_up()
    assert shapes == {(count, count * length) for count in WARM_COUNTS for length in WARM_LENGTHS}
    assert all(torch.equal(now[1:], was[1:]) for now, was in zip(kept, before, strict=True))
    assert all(torch.equal(pools.state.save(slot), was) for slot, was in zip((1, 2), state, strict=True))


def random_rows(teaching, lengths):
    """Segments of lessons in slots 1, 2, ... whose memories are random."""
    torch.manual_seed(3)
    lessons = []
    for slot, length in enumerate(lengths, 1):
        for view in teaching._learned.views.values():
            view[slot] = torch.randn(view[slot].shape) * 0.01
        lessons.append(Pupil(slot, torch.randint(5, 100, (length + 1,)).tolist()))
    return teaching._rows(lessons)


class Pupil:
    def __init__(self, slot, tokens):
        self.slot, self._tokens = slot, tokens

    def next_length(self):
        return len(self._tokens) - 1

    def segment(self, _):
        return self._tokens[:-1], self._tokens[1:]


@pytest.mark.parametrize("lengths", [(16,), (1,), (16, 5, 9), (3, 16, 16, 16)])
def test_padding_behind_segments_changes_none_of_their_numbers(lengths):
    """What a captured graph computes, whatever the lengths, is what the segments have by themselves."""
    teaching, twin = (Teaching(served(tiny_model()), 4, alone=False) for _ in range(2))
    assert teaching._segments.counts == [1, 2, 4]
    count = next(c for c in teaching._segments.counts if c >= len(lengths))
    wanted = teaching._segments.gradients(random_rows(teaching, lengths))
    room = twin._segments.padded(count)
    room.fill(random_rows(twin, [16] * count))  # what was there before
    rows = random_rows(twin, lengths)
    room.fill(rows)
    got = unpadded(twin._segments._gradients(room.rows), rows)
    torch.testing.assert_close(got.nll, wanted.nll)
    for ours, theirs in zip(got.gradients, wanted.gradients, strict=True):
        torch.testing.assert_close(ours.inner, theirs.inner, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(ours.outer, theirs.outer, atol=1e-5, rtol=1e-4)
    for name, view in teaching._state.views.items():
        torch.testing.assert_close(twin._state.views[name], view, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("lengths", [(40,), (1,), (40, 3, 16)])
def test_padding_behind_segments_that_are_read_again_changes_none_of_their_losses(lengths):
    teaching, twin = (Teaching(served(tiny_model()), 4, alone=False) for _ in range(2))
    for one in (teaching, twin):
        torch.manual_seed(5)
        for view in one._reads.views.values():
            view[1:] = torch.randn(view[1:].shape) * 0.1
    wanted = teaching._segments.losses(random_rows(teaching, lengths))
    rows, room = random_rows(twin, lengths), twin._segments.padded(4, 48)
    room.fill(rows)
    torch.testing.assert_close(twin._segments._losses(room.rows)[: len(rows.targets)], wanted)
    for name, view in teaching._state.views.items():
        torch.testing.assert_close(twin._state.views[name], view, atol=1e-5, rtol=1e-4)
