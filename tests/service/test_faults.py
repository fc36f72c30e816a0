"""What goes wrong with one sequence ends that sequence: its neighbours answer as if they were alone."""

from __future__ import annotations

import asyncio
import time

import pytest
import torch
from support.engine_calls import BOB, adapt, generate, generate_all, ids
from support.faults import CURSED, cursed, end_engine_thread
from support.tiny_model import write_tiny_checkpoint

from hope_serve.api import AdaptMode, GenerateRequest, SamplingParams, ScoreRequest
from hope_serve.api.engine import EngineFault
from hope_serve.errors import FailedPrecondition, Unavailable
from hope_serve.model.checkpoint import load_checkpoint
from hope_serve.model.config import LevelConfig
from hope_serve.tokenizer import Tokenizer

FAULTS = {
    "bug": RuntimeError("shapes do not fit"),
    "memory": torch.OutOfMemoryError("the device is full"),
    "NaN": float("nan"),
}
CASES = [
    *((kind, "bug") for kind in ("prompt", "written", "choices", "score", "lesson")),
    *((kind, fault) for kind in ("written", "score", "lesson") for fault in ("memory", "NaN")),
]
LONG = dict(max_tokens=20)


def clean(seed, count):
    """Ordinary ids without the cursed one."""
    return [token if token != CURSED else CURSED + 1 for token in ids(seed, count)]


def innocents(engine):
    """Calls of every kind that share the engine's steps for a while."""
    return [
        *(generate(engine, clean(seed, 5 + 7 * seed), **LONG) for seed in range(2)),
        generate(engine, clean(4, 9), temperature=1.5, seed=4, **LONG),
        engine.score(ScoreRequest(prompt=tuple(clean(5, 20)), continuations=(tuple(clean(6, 9)), tuple(clean(7, 3))))),
        adapt(engine, clean(8, 40), owner=BOB, mode=AdaptMode.DRY_RUN, request_id=str(time.monotonic())),
    ]


def culprit(engine, kind):
    if kind == "prompt":
        return generate(engine, [*clean(1, 20), CURSED, *clean(2, 20)], **LONG)
    if kind == "written":
        return generate(engine, clean(1, 20), logit_bias=((CURSED, 100.0),), **LONG)
    if kind == "choices":
        return generate_all(engine, clean(1, 20), n=3, logit_bias=((CURSED, 100.0),), temperature=1.0, **LONG)
    if kind == "score":
        return engine.score(ScoreRequest(prompt=tuple(clean(1, 20)), continuations=((7, CURSED, 8), (9, 10))))
    return adapt(engine, [*clean(1, 30), CURSED, *clean(2, 30)])


def said(results):
    """What may be compared of them: everything but times."""
    *replies, scores, learned = results
    return [reply.tokens for reply in replies], [score.is_greedy for score in scores], learned.metrics.tokens_used


@pytest.mark.parametrize(("kind", "fault"), CASES)
async def test_a_fault_ends_whose_it_is_and_nobody_else(open_engine, kind, fault):
    async with open_engine(max_slots=16) as engine:
        alone = [await call for call in innocents(engine)]
        with cursed(FAULTS[fault]):
            async with asyncio.timeout(30):
                failed, *together = await asyncio.gather(
                    culprit(engine, kind), *innocents(engine), return_exceptions=True
                )
        if (kind, fault) == ("lesson", "NaN"):
            assert isinstance(failed, FailedPrecondition) and failed.reason == "UPDATE_REFUSED"
        else:
            assert isinstance(failed, EngineFault), failed
            assert isinstance(failed.__cause__, FloatingPointError if fault == "NaN" else type(FAULTS[fault]))
        assert said(together) == said(alone)
        assert engine.ready
        assert said(await asyncio.gather(*innocents(engine))) == said(alone)


async def test_a_text_that_cannot_be_made_ends_its_own_sequence(engine, monkeypatch):
    whole = Tokenizer.token_bytes
    alone = await generate(engine, clean(2, 9), logit_bias=((CURSED, -100.0),), **LONG)

    def broken(self, token):
        if token == CURSED:
            raise KeyError(token)
        return whole(self, token)

    monkeypatch.setattr(Tokenizer, "token_bytes", broken)
    failed, beside = await asyncio.gather(
        generate(engine, clean(1, 9), logit_bias=((CURSED, 100.0),), **LONG),
        generate(engine, clean(2, 9), logit_bias=((CURSED, -100.0),), **LONG),
        return_exceptions=True,
    )
    assert isinstance(failed, KeyError)
    assert beside.tokens == alone.tokens


async def test_a_refused_lesson_leaves_its_neighbours_their_tokens(open_engine, tmp_path):
    """Streams that are decoded in the step in which a lesson is refused go on as if nothing was."""
    levels = (LevelConfig(hidden_size=48, chunk_size=16, rank=4, learning_rate=1e6),)
    wild = load_checkpoint(write_tiny_checkpoint(tmp_path / "wild", levels=levels))
    async with open_engine(model=wild) as engine:
        alone = [await generate(engine, ids(seed, 9), max_tokens=60) for seed in range(4)]
        async with asyncio.timeout(30):
            *together, refused = await asyncio.gather(
                *(generate(engine, ids(seed, 9), max_tokens=60) for seed in range(4)),
                _refusals(engine),
            )
    assert refused == ["UPDATE_REFUSED"] * 3
    assert [reply.tokens for reply in together] == [reply.tokens for reply in alone]


async def _refusals(engine):
    reasons = []
    for i in range(3):
        with pytest.raises(FailedPrecondition) as refused:
            await adapt(engine, ids(2, 40), request_id=str(i))
        reasons.append(refused.value.reason)
    return reasons


async def test_when_the_loop_ends_everybody_is_told_at_once(engine):
    request = GenerateRequest(prompt=tuple(ids(1, 5)), sampling=SamplingParams(max_tokens=2**20, ignore_eos=True))
    streams = [engine.generate(request) for _ in range(3)]
    for stream in streams:
        for _ in range(3):
            await anext(stream)
    scores = asyncio.create_task(engine.score(ScoreRequest(prompt=(7,) * 1500, continuations=((8,) * 500,) * 40)))
    await asyncio.sleep(0)
    end_engine_thread()
    async with asyncio.timeout(5):
        for stream in streams:
            with pytest.raises(Unavailable, match="engine stopped"):
                _ = [event async for event in stream]
        with pytest.raises(Unavailable, match="engine stopped"):
            await scores
    assert not engine.ready
    assert isinstance(engine.failure, SystemExit)
    for call in (generate(engine, ids(1, 3)), adapt(engine, ids(1, 30))):
        with pytest.raises(Unavailable, match="engine stopped"):
            await call
