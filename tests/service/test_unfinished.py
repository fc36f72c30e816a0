"""What broken streams had learned is kept for a while, within bounds."""

from __future__ import annotations

import asyncio

import pytest
from support.engine_calls import ANN, BOB

from hope_serve.api import AdaptOptions
from hope_serve.memory.store import Head
from hope_serve.service.unfinished import Progress, Unfinished

HEAD = Head(version=3, mark="m", exists=True)
HOW = AdaptOptions()


def progress(**changes):
    return Progress(**({"head": HEAD, "options": HOW, "learned": object(), "num_parts": 2, "digest": "d"} | changes))


async def test_the_latest_progress_of_a_stream_is_found_on_the_memory_it_was_learned_on():
    kept, latest = Unfinished(), progress()
    kept.keep(ANN, "r", progress())
    kept.keep(ANN, "r", latest)
    assert kept.find(ANN, "r", HEAD, HOW) is latest
    assert kept.find(BOB, "r", HEAD, HOW) is None
    assert kept.find(ANN, "other", HEAD, HOW) is None
    assert kept.find(ANN, "r", HEAD, AdaptOptions(passes=2)) is None
    for other in ({"version": 4}, {"mark": "n"}, {"exists": False}):
        moved = Head(**({"version": 3, "mark": "m", "exists": True} | other))
        assert kept.find(ANN, "r", moved, HOW) is None
    kept.clear()


async def test_of_too_many_the_one_not_learned_for_longest_leaves():
    kept = Unfinished(most=2)
    kept.keep(ANN, "first", progress())
    kept.keep(ANN, "second", progress())
    kept.keep(ANN, "first", progress())
    kept.keep(BOB, "third", progress())
    found = [kept.find(owner, name, HEAD, HOW) for owner, name in ((ANN, "first"), (ANN, "second"), (BOB, "third"))]
    assert [progress is not None for progress in found] == [True, False, True]
    kept.clear()


async def test_nobody_is_waited_for_longer_than_said():
    kept = Unfinished(seconds=0.05)
    kept.keep(ANN, "r", progress())
    async with asyncio.timeout(10):
        while list(kept.owners()):  # noqa: ASYNC110 (time alone ends it)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("end", ["drop", "forget", "clear"])
async def test_what_has_ended_is_kept_no_longer(end):
    kept = Unfinished()
    kept.keep(ANN, "r", progress())
    kept.keep(BOB, "r", progress())
    {"drop": lambda: kept.drop(ANN, "r"), "forget": lambda: kept.forget(ANN), "clear": kept.clear}[end]()
    assert set(kept.owners()) == (set() if end == "clear" else {BOB})
    kept.clear()
