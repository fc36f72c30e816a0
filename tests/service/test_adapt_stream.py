"""AdaptStream through a running engine and a real store: many parts, one version, exactly once, resumable."""

from __future__ import annotations

import asyncio
import math
import time

import pytest
from support.engine_calls import ANN, BOB, adapt, generate, ids
from support.engine_streams import PARTS, BrokenStream, digest_of, stream

from hope_serve.api import AdaptMode, Owner
from hope_serve.errors import (
    DeadlineExceeded,
    Exhausted,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    RequestIdReused,
    VersionConflict,
)
from hope_serve.metrics import Metrics


async def nothing_is_there(engine, owner=ANN):
    with pytest.raises(NotFound):
        await engine.memories.describe(owner)
    return True


async def test_a_stream_teaches_what_its_parts_teach_one_by_one_to_the_bit(open_engine):
    """Every part ends in the memory's own dtype, as an Adapt does: only the number of versions differs."""
    async with open_engine(deterministic=True) as engine:
        singles = [await adapt(engine, part, owner=BOB, request_id=f"r{i}") for i, part in enumerate(PARTS)]
        whole = (await stream(engine)).result
    assert (whole.version, singles[-1].version) == (1, 3)
    assert whole.state_digest == singles[-1].state_digest
    assert whole.metrics.levels == singles[-1].metrics.levels


async def test_metrics_are_those_of_all_parts_together(open_engine):
    async with open_engine(deterministic=True) as engine:
        singles = [(await adapt(engine, p, owner=BOB, request_id=f"r{i}")).metrics for i, p in enumerate(PARTS)]
        whole = (await stream(engine)).result.metrics
    targets = [len(part) - 1 for part in PARTS]
    assert (whole.tokens_given, whole.tokens_used) == (sum(map(len, PARTS)), sum(targets))
    for name in ("nll_before", "nll_after"):
        mean = sum(getattr(m, name) * n for m, n in zip(singles, targets, strict=True)) / sum(targets)
        assert getattr(whole, name) == pytest.approx(mean)
    assert whole.surprise == pytest.approx(
        math.hypot(*(m.surprise * n for m, n in zip(singles, targets, strict=True))) / sum(targets)
    )
    assert 0 < whole.update_norm <= sum(m.update_norm for m in singles) * (1 + 1e-6)
    assert whole.nll_after < whole.nll_before and not whole.clipped


async def test_one_part_is_an_adapt(open_engine):
    async with open_engine(deterministic=True) as engine:
        single = await adapt(engine, PARTS[0], owner=BOB)
        whole = (await stream(engine, PARTS[:1])).result
    assert whole.state_digest == single.state_digest
    assert whole.metrics.update_norm == pytest.approx(single.metrics.update_norm)


async def test_a_broken_stream_leaves_nothing_and_what_it_learned_is_not_learned_again(engine, learned_lengths):
    with pytest.raises(BrokenStream):
        await stream(engine, PARTS[:2], breaks=True)
    assert await nothing_is_there(engine)
    assert learned_lengths == [41, 23]
    done = await stream(engine)
    assert learned_lengths == [41, 23, 30]
    assert (done.num_parts_resumed, done.result.version) == (2, 1)
    assert done.result.metrics.tokens_given == 94
    plain = await stream(engine, owner=BOB)
    assert (plain.num_parts_resumed, plain.result.state_digest) == (0, done.result.state_digest)


@pytest.mark.parametrize("change", ["other part", "other options", "fewer parts", "other memory"])
async def test_what_was_learned_of_another_stream_is_not_gone_on_with(engine, learned_lengths, change):
    with pytest.raises(BrokenStream):
        await stream(engine, PARTS[:2], breaks=True)
    parts, options = PARTS, {}
    match change:
        case "other part":
            parts = (PARTS[0], ids(9, 23), PARTS[2])
        case "other options":
            options = {"passes": 2}
        case "fewer parts":
            parts = PARTS[:1]
        case "other memory":
            await adapt(engine, ids(7, 12), request_id="between")
    learned_lengths.clear()
    done = await stream(engine, parts, **options)
    assert done.num_parts_resumed == 0
    assert learned_lengths == [len(part) for part in parts]
    assert done.result.metrics.tokens_given == sum(map(len, parts))


async def test_an_erasure_forgets_what_a_broken_stream_had_learned(engine, learned_lengths):
    with pytest.raises(BrokenStream):
        await stream(engine, PARTS[:2], breaks=True)
    assert list(engine.memories.unfinished.owners()) == [ANN]
    with pytest.raises(NotFound):
        await engine.memories.delete(ANN)
    assert list(engine.memories.unfinished.owners()) == []
    await stream(engine)
    assert learned_lengths == [41, 23, 41, 23, 30]


@pytest.mark.parametrize("declares", [True, False])
async def test_the_same_stream_twice_is_applied_once_and_answered_alike(engine, learned_lengths, declares):
    declared = digest_of(PARTS) if declares else ""
    first = await stream(engine, declared=declared)
    learned_lengths.clear()
    read = []
    again = await stream(engine, declared=declared, after=_noting(read))
    assert again.result.duplicate and not first.result.duplicate
    assert again.result.metrics == first.result.metrics
    assert again.result.state_digest == first.result.state_digest
    assert learned_lengths == []
    assert read == ([] if declares else [0, 1, 2])
    assert (await engine.memories.describe(ANN)).version == 1


async def test_a_digest_is_no_part_of_what_a_stream_is(engine):
    first = await stream(engine)
    again = await stream(engine, declared=digest_of(PARTS))
    assert again.result.duplicate and again.result.version == first.result.version == 1


@pytest.mark.parametrize("declares", [True, False])
async def test_the_same_id_with_another_payload_is_refused(engine, declares, learned_lengths):
    await stream(engine)
    other = PARTS[:2]
    with pytest.raises(RequestIdReused):
        await stream(engine, other, declared=digest_of(other) if declares else "")
    with pytest.raises(RequestIdReused):
        await stream(engine, passes=2)
    with pytest.raises(RequestIdReused):
        await adapt(engine, PARTS[0], request_id="s")
    assert learned_lengths == [41, 23, 30]


async def test_parts_that_do_not_give_the_digest_are_refused(engine):
    with pytest.raises(InvalidRequest, match=r"start\.payload_digest: the parts give .* not 0000"):
        await stream(engine, declared="0" * 64)
    assert await nothing_is_there(engine)


async def test_an_adapt_while_a_stream_comes_in_counts_and_the_stream_is_learned_on_top(engine, learned_lengths):
    async def overtaking(number):
        if number == 1:
            await adapt(engine, ids(8, 17), request_id="between")

    done = (await stream(engine, after=overtaking)).result
    assert (done.base_version, done.version) == (1, 2)
    assert (await engine.memories.describe(ANN)).tokens_learned == 16 + 91
    assert sorted(learned_lengths) == sorted([41, 23, 30, 17, 41, 23, 30])
    assert done.metrics.tokens_given == 94


async def test_streams_and_adapts_on_two_pods_all_count_once(open_engine):
    async with open_engine() as one, open_engine() as two:
        pods = [one, two]
        calls = [stream(pods[i % 2], PARTS[:2], request_id=f"s{i // 2}") for i in range(6)]
        calls += [adapt(pods[i % 2], ids(i, 12), request_id=f"r{i}") for i in range(3)]
        await asyncio.gather(*calls)
        for pod in pods:
            found = await pod.memories.describe(ANN)
            assert (found.version, found.tokens_learned) == (6, 3 * 62 + 3 * 11)


async def test_an_expected_version_is_asked_for_at_both_ends(engine, learned_lengths):
    with pytest.raises(VersionConflict):
        await stream(engine, expected_version=3)
    assert learned_lengths == []

    async def overtaking(number):
        if number == 2:
            await adapt(engine, ids(8, 17), request_id="between")

    with pytest.raises(VersionConflict) as refused:
        await stream(engine, expected_version=0, after=overtaking)
    assert refused.value.head == 1
    assert (await engine.memories.describe(ANN)).version == 1


async def test_a_memory_erased_meanwhile_is_not_brought_back(engine):
    await adapt(engine, ids(8, 17), request_id="before")

    async def erasing(number):
        if number == 1:
            await engine.memories.delete(ANN)

    with pytest.raises(FailedPrecondition) as refused:
        await stream(engine, after=erasing)
    assert refused.value.reason == "MEMORY_ERASED"
    assert await nothing_is_there(engine)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((PARTS[0], [7]), r"parts\[1\]: 1 tokens are fewer than 2"),
        ((PARTS[0], PARTS[1], [7, 10**7]), r"parts\[2\]: token id 10000000 is outside"),
        ((), "parts: there is none"),
    ],
)
async def test_a_refused_part_refuses_the_whole_by_its_number(engine, parts, message):
    with pytest.raises(InvalidRequest, match=message):
        await stream(engine, parts)
    assert await nothing_is_there(engine)


async def test_limits_are_refused_by_name(open_engine):
    async with open_engine(max_stream_tokens=70, max_streams=1) as engine:
        with pytest.raises(InvalidRequest, match=r"parts\[2\]: 94 tokens .* engine\.max_stream_tokens 70"):
            await stream(engine)

        async def another(_number):
            with pytest.raises(Exhausted, match=r"engine\.max_streams"):
                await stream(engine, owner=BOB)

        assert (await stream(engine, PARTS[:2], after=another)).result.version == 1


async def test_a_dry_run_of_a_stream_writes_nothing(engine):
    done = (await stream(engine, mode=AdaptMode.DRY_RUN)).result
    assert done.version == 0 and done.metrics.skip_reason.startswith("dry run")
    assert await nothing_is_there(engine)


async def test_a_bound_on_the_update_is_one_for_all_parts_together(open_engine):
    """Each part gets what those before it left of the bound, and then next to nothing; never 0, which is no bound."""
    async with open_engine(deterministic=True) as engine:
        free = await adapt(engine, PARTS[0], owner=BOB, mode=AdaptMode.DRY_RUN)
        for limit in (free.metrics.update_norm / 4, free.metrics.update_norm * 1.5):
            left, user = limit, Owner(tenant="default", user=f"to {limit}")
            for i, part in enumerate(PARTS):
                single = await adapt(engine, part, owner=user, request_id=f"r{i}", max_update_norm=max(left, 1e-12))
                left -= single.metrics.update_norm
            bound = (
                await stream(engine, request_id=f"to {limit}", max_update_norm=limit, mode=AdaptMode.DRY_RUN)
            ).result
            assert bound.metrics.clipped and abs(left) < 0.01 * limit
            assert bound.metrics.levels == single.metrics.levels


async def test_a_deadline_ends_a_stream_that_waits_for_its_parts(engine):
    async def for_ever(_number):
        await asyncio.sleep(60)

    with pytest.raises(DeadlineExceeded):
        await stream(engine, after=for_ever, deadline=time.monotonic() + 0.3)
    assert await nothing_is_there(engine)
    assert (await generate(engine, ids(1, 4))).tokens


async def test_metrics_count_a_stream_once(open_engine):
    metrics = Metrics()
    async with open_engine(metrics=metrics) as engine:
        await stream(engine)
        await stream(engine)
    value = metrics.registry.get_sample_value
    assert value("hope_adapt_total", {"outcome": "committed"}) == 1
    assert value("hope_adapt_total", {"outcome": "duplicate"}) == 1
    assert value("hope_adapt_tokens_total") == 91


def _noting(read):
    async def note(number):
        read.append(number)

    return note


@pytest.fixture
def learned_lengths(engine, monkeypatch):
    """Tokens of every lesson that the engine is given, in order."""
    lengths, learn = [], engine._engine.learn

    async def noting(task):
        lengths.append(len(task.tokens))
        return await learn(task)

    monkeypatch.setattr(engine._engine, "learn", noting)
    return lengths
