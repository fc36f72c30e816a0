"""A batch's gradient is the same by every way of taking it: counted tokens alone, a fixed number, captured."""

from __future__ import annotations

import pytest
import torch
from support.other_makers import hugging_face

from hope_serve.model.attention_learn import LayerFunctions, as_many_tokens
from hope_serve.training.parts.batches import BatchMaker, moved
from hope_serve.training.parts.buckets import BUCKETS, shrunk
from hope_serve.training.parts.graphed import GraphedLearn
from hope_serve.training.parts.loss import Guard, batch_loss
from hope_serve.training.parts.options import parse
from hope_serve.training.parts.setup import compiled
from hope_serve.training.parts.train import Trainer

SENTENCES = "The rain fell on the harbour all day. Nobody spoke of the ship again. She closed the door behind her. "
SMALL = {bucket.name: bucket for bucket in shrunk(BUCKETS, 48)}


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def trainer(request, tmp_path):
    hugging_face(tmp_path / "base", "qwen2", tie_word_embeddings=True, max_position_embeddings=2048)
    text = tmp_path / "text"
    text.mkdir()
    (text / "books_train.txt").write_text(SENTENCES * 200)
    paths = ["--base", str(tmp_path / "base"), "--text", str(text), "--out", str(tmp_path / "part.safetensors")]
    trainer = Trainer(parse([*paths, "--device", request.param]))
    generator = torch.Generator(request.param).manual_seed(3)
    with torch.no_grad():
        for name, tensor in trainer.part.items():
            if name.endswith(".outer"):  # else no gradient reaches what is inside
                tensor.add_(0.02 * torch.randn(tensor.shape, generator=generator, device=request.param))
    return trainer


def make_batch(trainer, name, seed):
    maker = BatchMaker(trainer.source.dialogue, trainer.options.text, seed=seed)
    return moved(maker.batch(SMALL[name]), trainer.device)


def learn(trainer, functions):
    def one(batch, bucket):
        loss, losses = batch_loss(trainer.learner(functions), trainer.base, batch, bucket, None, Guard())
        loss.backward()
        return losses

    return one


def gradients(trainer):
    """All gradients so far, and none afterwards."""
    taken = {name: t.grad.clone() for name, t in trainer.part.items() if t.grad is not None}
    for tensor in trainer.part.values():
        if tensor.grad is not None:
            tensor.grad.zero_()
    return taken


@pytest.mark.parametrize("name", ["short", "two messages"])
def test_a_fixed_number_of_tokens_gives_the_gradient_of_those_that_count(trainer, name):
    batch = make_batch(trainer, name, seed=5)
    counted = learn(trainer, LayerFunctions())(batch, SMALL[name])
    expected = gradients(trainer)
    fixed = learn(trainer, LayerFunctions(counted=as_many_tokens))(batch, SMALL[name])
    assert torch.allclose(counted, fixed, rtol=2e-2 if trainer.device == "cuda" else 1e-4, atol=1e-4)
    for tensor_name, gradient in gradients(trainer).items():
        tolerance = (2e-1 if trainer.device == "cuda" else 1e-3) * expected[tensor_name].abs().max()
        assert torch.allclose(gradient, expected[tensor_name], rtol=0, atol=float(tolerance)), tensor_name


def test_no_batch_holds_more_answers_than_have_room(trainer):
    for name, bucket in SMALL.items():
        batch = make_batch(trainer, name, seed=6)
        assert int((batch.asked.mask > 0).sum()) <= bucket.users * bucket.answer_tokens


@pytest.mark.cuda
def test_a_captured_batch_adds_what_a_plain_one_adds(trainer):
    if trainer.device == "cpu":
        pytest.skip("graphs are of a card")
    functions = LayerFunctions(counted=as_many_tokens)
    graphed = GraphedLearn(learn(trainer, functions), trainer.part.values())
    for name in ("short", "two messages", "short", "two messages"):
        for seed in (7, 8):
            batch = make_batch(trainer, name, seed)
            captured = graphed(batch, SMALL[name])
            got = gradients(trainer)
            expected_losses = learn(trainer, functions)(batch, SMALL[name])
            expected = gradients(trainer)
            assert torch.allclose(captured, expected_losses, rtol=1e-2, atol=1e-3)
            for tensor_name, gradient in got.items():
                tolerance = 1e-1 * expected[tensor_name].abs().max()
                assert torch.allclose(gradient, expected[tensor_name], rtol=0, atol=float(tolerance)), tensor_name


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of what torch's compiler calls of torch
@pytest.mark.parametrize("name", [BUCKETS[0].name, next(one.name for one in BUCKETS if one.learned_chunks > 1)])
def test_fused_passes_give_the_gradient_of_plain_ones(trainer, name):
    if trainer.device == "cpu":
        pytest.skip("a CPU takes minutes to compile them")
    batch = make_batch(trainer, name, seed=9)
    plain = learn(trainer, LayerFunctions(counted=as_many_tokens))(batch, SMALL[name])
    expected = gradients(trainer)
    fused = learn(trainer, compiled()._replace(counted=as_many_tokens))(batch, SMALL[name])
    assert torch.allclose(plain, fused, rtol=2e-2, atol=1e-4)
    for tensor_name, gradient in gradients(trainer).items():
        tolerance = 2e-1 * expected[tensor_name].abs().max()
        assert torch.allclose(gradient, expected[tensor_name], rtol=0, atol=float(tolerance)), tensor_name
