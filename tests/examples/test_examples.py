"""Every example does on the bundled model what it says."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from hope_serve.cli.server_process import ServerProcess
from hope_serve.client import HopeClient

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module", autouse=True)
def _beside_each_other():
    sys.path.insert(0, str(EXAMPLES))
    yield
    sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    home = tmp_path_factory.mktemp("served")
    with ServerProcess(memory=f"sqlite://{home}/memory.db", log=home / "log", device="cpu") as server:
        yield server.target


@pytest.fixture(autouse=True)
def _nobody_is_left(target):
    yield
    with HopeClient(target) as client:
        assert list(client.list_memories()) == []


@pytest.mark.timeout(300)
def test_a_companion_knows_the_next_day_what_it_was_told(target):
    import companion

    answers = dict(companion.play(target))
    assert "Biscuit" in answers["What is my dog called?"]
    assert "Bergen" in answers["Where do I live?"]
    assert "Imogen" in answers["What is my sister's name?"]


def test_a_recommender_ranks_every_pair_by_every_way(target):
    import recommender

    shares = recommender.play(target, people=1, events=8)
    assert shares.keys() == {"memory", "no memory", "counting kinds"}
    assert all(0 <= share <= 1 for share in shares.values())


def test_tastes_are_of_kinds_and_the_table_that_counts_them_is_right(target):
    import recommender

    for taste in recommender.tastes(20, 24, random.Random(0)):
        assert {film.kind in taste.kinds for film in taste.new} == {True, False}
        assert not {film.title for film in taste.new} & {film.title for film in taste.seen}
        assert recommender.pairs_in_order(taste, recommender.counted(taste)) > 0.7
    assert recommender.pairs_in_order(taste, lambda film: 0.0) == 0.5


def test_an_example_starts_a_server_of_its_own_where_none_is_named():
    from served import options, served

    given = options("about").parse_args([])
    with served(given.target, given.checkpoint) as address, HopeClient(address) as client:
        assert client.get_model().name == "hope-demo"
    with served(address) as same:
        assert same == address


@pytest.mark.timeout(300)
async def test_memory_and_retrieval_stand_in_one_table(target):
    import memory_beside_retrieval

    report = await memory_beside_retrieval.play(target, people=1)
    right, costs = report.tables
    assert right.cell("8 facts told at once", "memory") >= 0.5
    assert right.cell("8 facts told at once", "neither") <= 0.3
    tokens = {arm: costs.cell("8 facts told at once: tokens a prompt", arm) for arm in right.columns}
    assert tokens["memory"] == tokens["neither"] < tokens["BM25 in the prompt"] < tokens["all in the prompt"]
