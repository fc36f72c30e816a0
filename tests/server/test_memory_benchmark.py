"""The benchmark of the store, rehearsed: its parts run on a real Valkey, with hardly any rounds."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def benchmark_path(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    monkeypatch.chdir(Path(__file__).parents[2])  # the neighbour is a module of a process of its own


async def test_every_figure_of_the_stores_own_operations_is_there(benchmark_path, tmp_path):
    from benchmarks.store import operations
    from benchmarks.store.valkey import stored, valkey

    async with valkey(tmp_path, "rehearsal", "local_fsync") as server, stored(server.url) as store:
        figures = operations.disk(tmp_path, 3)
        figures += await operations.round_trips(store, "local_fsync", 3)
        figures += await operations.commits(store, 1, "local_fsync", 3)
        figures += await operations.restores(store, 1, 3)
        figures += await operations.neighbours(server, store, 0.3)
        figures += await operations.commits_a_second(store, "local_fsync", 0.2)
    assert len(figures) == 11
    assert all(figure.value >= 0 for figure in figures)
