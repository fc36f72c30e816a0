"""Adapt through a running engine and a real store: exactly once, on the newest version, restored bit for bit."""

from __future__ import annotations

import asyncio
import time

import pytest
import torch
from support.engine_calls import ANN, BOB, adapt, adapt_request, generate, ids
from support.taught_directly import taught_directly
from support.tiny_model import write_tiny_checkpoint

from hope_serve.api import AdaptMode, Durability
from hope_serve.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    RequestIdReused,
    VersionConflict,
)
from hope_serve.metrics import Metrics
from hope_serve.model.checkpoint import load_checkpoint
from hope_serve.model.config import LevelConfig


async def test_what_is_learned_is_the_models_own_learning(engine, checkpoint):
    first, second = ids(1, 41), ids(2, 23)
    await adapt(engine, first, request_id="a")
    await adapt(engine, second, request_id="b")
    warm = (await engine.memories.base(ANN))[1]
    form = warm.learned.form
    ours = form.reading(warm.reads)
    for i, theirs in enumerate(taught_directly(checkpoint.model, first, second)):
        for side in theirs._fields:
            # Values are kept in fp16: where a product was summed in another order, the last bit may differ.
            torch.testing.assert_close(ours[f"{i}.delta.{side}"], getattr(theirs, side)[0], rtol=2e-3, atol=1e-4)


async def test_result_says_what_was_done(engine):
    result = await adapt(engine, ids(1, 41))
    assert (result.version, result.base_version, result.duplicate) == (1, 0, False)
    assert result.durability is Durability.LOCAL_FSYNC
    metrics = result.metrics
    assert (metrics.tokens_given, metrics.tokens_used) == (41, 40)
    assert metrics.nll_after < metrics.nll_before
    assert metrics.surprise > 0 and metrics.update_norm > 0 and not metrics.clipped
    assert [level.updates for level in metrics.levels] == [2, 1]
    assert all(level.drift > 0 for level in metrics.levels)
    described = await engine.memories.describe(ANN)
    assert (described.version, described.tokens_learned) == (1, 40)
    assert described.state_digest == result.state_digest
    assert described.levels == metrics.levels


async def test_same_request_twice_is_applied_once_and_answered_alike(engine):
    first = await adapt(engine, ids(1, 30))
    again = await adapt(engine, ids(1, 30))
    assert again.duplicate and not first.duplicate
    assert (again.version, again.state_digest, again.metrics) == (first.version, first.state_digest, first.metrics)
    assert (await engine.memories.describe(ANN)).version == 1


async def test_same_request_id_with_another_text_is_refused(engine):
    await adapt(engine, ids(1, 30))
    with pytest.raises(RequestIdReused):
        await adapt(engine, ids(2, 30))


async def test_concurrent_adaptations_of_one_owner_all_count(engine):
    results = await asyncio.gather(*(adapt(engine, ids(i, 12 + i), request_id=f"r{i}") for i in range(8)))
    assert sorted(r.version for r in results) == list(range(1, 9))
    assert (await engine.memories.describe(ANN)).tokens_learned == sum(11 + i for i in range(8))


async def test_two_engines_on_one_store_never_lose_an_adaptation(open_engine):
    async with open_engine() as one, open_engine() as two:
        engines = [one, two]
        calls = [adapt(engines[i % 2], ids(i, 10 + i), request_id=f"r{i}") for i in range(10)]
        results = await asyncio.gather(*calls)
        assert sorted(r.version for r in results) == list(range(1, 11))
        tokens = {(await e.memories.describe(ANN)).tokens_learned for e in engines}
        assert tokens == {sum(9 + i for i in range(10))}


async def test_restored_memory_continues_bit_for_bit(open_engine):
    async with open_engine(deterministic=True) as engine:
        await adapt(engine, ids(1, 50))
        warm = await generate(engine, ids(2, 9), owner=ANN, logprobs=4, max_tokens=12)
        kept = await adapt(engine, ids(3, 21), request_id="more", mode=AdaptMode.DRY_RUN)
    async with open_engine(deterministic=True) as engine:
        cold = await generate(engine, ids(2, 9), owner=ANN, logprobs=4, max_tokens=12)
        again = await adapt(engine, ids(3, 21), request_id="more", mode=AdaptMode.DRY_RUN)
    assert cold.logprobs == warm.logprobs and cold.version == warm.version
    assert again.metrics == kept.metrics


async def test_expected_version_guards_against_other_writers(engine):
    await adapt(engine, ids(1, 10))
    with pytest.raises(VersionConflict, match="expected_version is 5, but the memory stands at version 1") as refused:
        await adapt(engine, ids(2, 10), request_id="r2", expected_version=5)
    assert refused.value.head == 1
    assert (await adapt(engine, ids(2, 10), request_id="r3", expected_version=1)).version == 2


async def test_dry_run_measures_and_writes_nothing(engine):
    result = await adapt(engine, ids(1, 30), mode=AdaptMode.DRY_RUN)
    assert result.version == 0 and result.metrics.nll_after < result.metrics.nll_before
    assert result.metrics.skip_reason.startswith("dry run")
    with pytest.raises(NotFound):
        await engine.memories.describe(ANN)


async def test_text_that_does_not_improve_is_not_committed_when_so_asked(engine):
    result = await adapt(engine, ids(1, 30), mode=AdaptMode.COMMIT_IF_IMPROVED, learning_rate_scale=0.0)
    assert result.version == 0
    assert "did not fall" in result.metrics.skip_reason
    assert (await adapt(engine, ids(1, 30), request_id="r2", mode=AdaptMode.COMMIT_IF_IMPROVED)).version == 1


async def test_update_norm_is_bounded_and_says_so(engine):
    free = await adapt(engine, ids(1, 30), mode=AdaptMode.DRY_RUN)
    limit = free.metrics.update_norm / 3
    bound = await adapt(engine, ids(1, 30), max_update_norm=limit)
    assert bound.metrics.clipped
    assert 0 < bound.metrics.update_norm <= limit * 1.001


async def test_only_the_levels_asked_for_move(engine):
    result = await adapt(engine, ids(1, 40), levels=(1,))
    assert [level.drift > 0 for level in result.metrics.levels] == [False, True]


async def test_more_passes_learn_more(engine):
    once = await adapt(engine, ids(1, 40), owner=ANN)
    thrice = await adapt(engine, ids(1, 40), owner=BOB, passes=3)
    assert thrice.metrics.tokens_used == 3 * once.metrics.tokens_used
    assert thrice.metrics.nll_after < once.metrics.nll_after


async def test_update_beyond_the_memorys_dtype_is_refused_and_nothing_changes(open_engine, tmp_path):
    levels = (LevelConfig(hidden_size=48, chunk_size=16, rank=4, learning_rate=1e6),)
    wild = load_checkpoint(write_tiny_checkpoint(tmp_path / "wild", levels=levels))
    async with open_engine(model=wild) as engine:
        await adapt(engine, ids(1, 20), learning_rate_scale=1e-6)
        for retry in range(2):
            with pytest.raises(FailedPrecondition, match="larger than float16 can hold") as refused:
                await adapt(engine, ids(2, 40), request_id=f"wild{retry}")
            assert refused.value.reason == "UPDATE_REFUSED"
        assert (await engine.memories.describe(ANN)).version == 1
        assert (await generate(engine, ids(1, 4), owner=ANN)).tokens


async def test_memory_of_another_model_is_refused_naming_both(engine, open_engine, tmp_path):
    await adapt(engine, ids(1, 20))
    other = load_checkpoint(write_tiny_checkpoint(tmp_path / "other", seed=5))
    async with open_engine(model=other) as stranger:
        for call in (generate(stranger, ids(1, 4), owner=ANN), adapt(stranger, ids(2, 9), request_id="x")):
            with pytest.raises(FailedPrecondition) as refused:
                await call
            assert other.fingerprint[:12] in str(refused.value)
            assert engine.info.fingerprint[:12] in str(refused.value)
    assert (await generate(engine, ids(1, 4), owner=ANN)).version == 1


async def test_rollback_brings_old_answers_back_as_a_new_version(engine):
    await adapt(engine, ids(1, 40))
    early = await generate(engine, ids(2, 9), owner=ANN, logprobs=2)
    await adapt(engine, ids(5, 40), request_id="r2")
    assert await engine.memories.rollback(ANN, to_version=1, expected_version=2, request_id="back") == 3
    late = await generate(engine, ids(2, 9), owner=ANN, logprobs=2)
    assert late.version == 3 and late.logprobs == early.logprobs


async def test_erased_memory_is_gone_and_may_begin_anew(engine):
    await adapt(engine, ids(1, 40))
    receipt = await engine.memories.delete(ANN)
    assert receipt.versions_removed >= 1
    assert (await generate(engine, ids(1, 4), owner=ANN)).version == 0
    with pytest.raises(NotFound):
        await engine.memories.describe(ANN)
    fresh = await adapt(engine, ids(2, 20), request_id="new")
    assert fresh.base_version == 0


async def test_deadline_during_learning_acknowledges_nothing_and_a_retry_settles_it(engine):
    with pytest.raises(DeadlineExceeded):
        await adapt(engine, ids(1, 20_000), deadline=time.monotonic() + 0.05)
    result = await adapt(engine, ids(2, 20), request_id="r2")
    assert result.version == 1


async def test_leaving_during_learning_frees_the_engine(engine):
    task = asyncio.ensure_future(engine.adapt(adapt_request(ids(1, 20_000))))
    await asyncio.sleep(0.2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(10):
        assert (await adapt(engine, ids(2, 20), request_id="r2")).version == 1


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        ([7], {}, "tokens: 1 tokens are fewer than 2"),
        ([7, 10**7], {}, "tokens: token id 10000000 is outside the vocabulary"),
        ([7, 8, 9], {"levels": (2,)}, "options.levels: 2 is not an online level; the model has 0 to 1"),
        ([7, 8, 9], {"levels": (-1,)}, "options.levels: -1 is not an online level"),
    ],
)
async def test_bad_adaptation_is_refused_by_field(engine, tokens, options, message):
    with pytest.raises(InvalidRequest, match=message):
        await adapt(engine, tokens, **options)


async def test_metrics_count_what_happened(open_engine):
    metrics = Metrics()
    async with open_engine(metrics=metrics) as engine:
        await adapt(engine, ids(1, 30))
        await adapt(engine, ids(1, 30))
        await generate(engine, ids(2, 5), owner=ANN, max_tokens=6)
    value = metrics.registry.get_sample_value
    assert value("hope_adapt_total", {"outcome": "committed"}) == 1
    assert value("hope_adapt_total", {"outcome": "duplicate"}) == 1
    assert value("hope_idempotent_replays_total") == 1
    assert value("hope_adapt_tokens_total") == 29
    assert value("hope_generation_tokens_total") == 6
    assert value("hope_prompt_tokens_total") == 5
    assert value("hope_time_to_first_token_seconds_count", {"memory_tier": "host"}) == 1
    assert value("hope_inter_token_latency_seconds_count") == 5


async def test_adaptation_goes_on_when_others_passed_the_version_it_was_about_to_read(open_engine, monkeypatch):
    async with open_engine() as slow, open_engine() as busy:
        await adapt(busy, ids(0, 40), request_id="first")
        head, first = slow.memories.store.head, asyncio.Event()

        async def head_and_pause(owner):
            found = await head(owner)
            if not first.is_set():
                first.set()
                for number in range(1, 5):
                    await adapt(busy, ids(number, 40), request_id=f"busy-{number}")
            return found

        monkeypatch.setattr(slow.memories.store, "head", head_and_pause)
        result = await adapt(slow, ids(9, 40), request_id="slow")
    assert (result.base_version, result.version) == (5, 6)
