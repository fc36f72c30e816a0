"""Levels of every optimizer through a running engine and a real store: learned, kept, restored, told apart."""

from __future__ import annotations

import asyncio

import pytest
import torch
from support.engine_calls import ANN, BOB, adapt, generate, ids
from support.taught_directly import taught_directly
from support.tiny_model import write_tiny_checkpoint
from support.tiny_optimizers import EVERY_RULE, levels_with

from hope_serve.api import AdaptMode
from hope_serve.errors import FailedPrecondition
from hope_serve.model.checkpoint import load_checkpoint
from hope_serve.optim import DeltaMomentum, Momentum


@pytest.fixture
def checkpoint_with(tmp_path):
    """``checkpoint_with(rule, **config)``: the tiny model with that optimizer on both online levels."""

    def written(rule, **config):
        folder = tmp_path / f"{type(rule).__name__}-{len(list(tmp_path.iterdir()))}"
        return load_checkpoint(write_tiny_checkpoint(folder, levels=levels_with(rule), **config))

    return written


async def learned(engine, owner=ANN):
    """Every tensor of a memory at hand."""
    return (await engine.memories.base(owner))[1].learned.cms.tensors()


@EVERY_RULE
async def test_what_is_learned_is_the_models_own_learning(rule, open_engine, checkpoint_with):
    model = checkpoint_with(rule, memory_dtype="float32")
    first, second = ids(1, 71), ids(2, 43)
    async with open_engine(model=model) as engine:
        await adapt(engine, first, request_id="a")
        await adapt(engine, second, request_id="b")
        warm = (await engine.memories.base(ANN))[1]
        ours = warm.learned.form.reading(warm.reads)
    for i, theirs in enumerate(taught_directly(model.model, first, second)):
        for side in theirs._fields:
            torch.testing.assert_close(ours[f"{i}.delta.{side}"], getattr(theirs, side)[0], rtol=1e-3, atol=2e-5)


@EVERY_RULE
async def test_memory_restored_from_the_store_goes_on_as_the_one_that_stayed_bit_for_bit(
    rule, open_engine, checkpoint_with, tmp_path
):
    model, there = checkpoint_with(rule), f"sqlite://{tmp_path}/stayed.db"
    async with open_engine(model=model, url=there, deterministic=True) as stayed:
        await adapt(stayed, ids(1, 61))
        before = await learned(stayed)
        last = await adapt(stayed, ids(3, 58), request_id="more")
        expected = await learned(stayed)
    async with open_engine(model=model, deterministic=True) as engine:
        await adapt(engine, ids(1, 61))
    async with open_engine(model=model, deterministic=True) as engine:
        await generate(engine, ids(2, 9), owner=ANN)
        restored = await learned(engine)
        assert all(torch.equal(tensor, before[name]) for name, tensor in restored.items())
        again = await adapt(engine, ids(3, 58), request_id="more")
        found = await learned(engine)
    assert again.metrics == last.metrics
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    kept = [name for name in found if ".slot" in name]
    assert len(kept) == 4 * len(rule.slot_shapes((4, 4)))
    assert all(found[name].any() for name in kept if name.startswith("0.slot0"))


@EVERY_RULE
async def test_two_who_learn_at_once_learn_what_each_would_alone(rule, open_engine, checkpoint_with, tmp_path):
    model, apart = checkpoint_with(rule), f"sqlite://{tmp_path}/apart.db"
    async with open_engine(model=model, deterministic=True) as engine:
        await asyncio.gather(
            adapt(engine, ids(1, 61), owner=ANN), adapt(engine, ids(2, 45), owner=BOB, learning_rate_scale=0.5)
        )
        together = [await learned(engine, owner) for owner in (ANN, BOB)]
    async with open_engine(model=model, url=apart, deterministic=True) as engine:
        await adapt(engine, ids(1, 61), owner=ANN)
        await adapt(engine, ids(2, 45), owner=BOB, learning_rate_scale=0.5)
        alone = [await learned(engine, owner) for owner in (ANN, BOB)]
    for ours, theirs in zip(together, alone, strict=True):
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@EVERY_RULE
async def test_a_larger_learning_rate_scale_moves_a_memory_further(rule, open_engine, checkpoint_with):
    async with open_engine(model=checkpoint_with(rule, memory_dtype="float32")) as engine:
        half = await adapt(engine, ids(1, 17), owner=ANN, learning_rate_scale=0.5)
        whole = await adapt(engine, ids(1, 17), owner=BOB)
    assert whole.metrics.update_norm == pytest.approx(2 * half.metrics.update_norm, rel=1e-3)
    assert whole.metrics.update_norm > 0


async def test_memory_of_one_optimizer_is_refused_by_a_model_of_another(open_engine, checkpoint_with):
    """The same weights, and optimizers that keep tensors of the same names and shapes."""
    one, other = checkpoint_with(Momentum()), checkpoint_with(DeltaMomentum())
    assert all(torch.equal(a, other.model.state_dict()[n]) for n, a in one.model.state_dict().items())
    async with open_engine(model=one) as engine:
        await adapt(engine, ids(1, 20))
    async with open_engine(model=other) as stranger:
        for call in (generate(stranger, ids(1, 4), owner=ANN), adapt(stranger, ids(2, 9), request_id="x")):
            with pytest.raises(FailedPrecondition, match="belongs to the model") as refused:
                await call
            assert refused.value.reason == "OTHER_MODEL"
            assert one.fingerprint[:12] in str(refused.value) and other.fingerprint[:12] in str(refused.value)


@EVERY_RULE
@pytest.mark.parametrize("length", [58, 65])  # ends within a chunk of both levels, and where both end
async def test_no_optimizer_moves_a_memory_further_than_it_may(rule, length, open_engine, checkpoint_with):
    """A rule that keeps momentum goes on where earlier lessons led, however small the new gradient's share is."""
    async with open_engine(model=checkpoint_with(rule, memory_dtype="float32"), deterministic=True) as engine:
        await adapt(engine, ids(1, 64), request_id="earlier")
        free = await adapt(engine, ids(3, length), mode=AdaptMode.DRY_RUN)
        for share in (0.5, 0.01):
            limit = share * free.metrics.update_norm
            bound = await adapt(engine, ids(3, length), max_update_norm=limit, mode=AdaptMode.DRY_RUN)
            assert bound.metrics.clipped
            assert 0 < bound.metrics.update_norm <= limit * 1.001
        loose = await adapt(engine, ids(3, length), max_update_norm=1e6, mode=AdaptMode.DRY_RUN)
        assert loose.metrics == free.metrics
