"""The bundled checkpoint, measured as training measures it and as a running server's users would."""

from __future__ import annotations

import asyncio

import pytest
from support.server_running import connect, server_config

from hope_serve.config import BUNDLED_CHECKPOINT
from hope_serve.model.checkpoint import load_checkpoint
from hope_serve.server.serve import running
from hope_serve.tokenizer import Tokenizer
from hope_serve.training.episodes import EpisodeBuilder
from hope_serve.training.meta import recall
from hope_serve.training.personas import Fact, PersonaFactory, Split
from hope_serve.training.plans import PLANS
from hope_serve.training.study import Answer, Study, share

PEOPLE, FACTS = 2, 4


def test_a_trained_model_recalls_with_its_memory_and_not_without():
    loaded = load_checkpoint(BUNDLED_CHECKPOINT)
    people = PersonaFactory(Split.HELD_OUT, seed=11)
    builder = EpisodeBuilder(Tokenizer.load(loaded.tokenizer_path), people, lambda n: [20] * n)
    scores = recall(loaded.model, PLANS[0], builder.build(PLANS[0], 2))
    assert scores["with"] > 0.7
    assert scores["without"] < 0.2
    assert scores["oldest"] == scores["with"]
    assert "corrected" not in scores


async def test_people_are_remembered_by_their_own_memory_alone(tmp_path):
    async with running(server_config(BUNDLED_CHECKPOINT, tmp_path)) as server, connect(server) as client:
        study = Study(client, PersonaFactory(Split.HELD_OUT, seed=5), seed=5)
        scores = await study.recall(PEOPLE, FACTS)
        assert scores["recall_with_memory"] > 0.5
        assert scores["recall_without_memory"] < 0.3
        assert scores["recall_of_others_facts"] < 0.3
        assert scores["recall_with_memory"] * PEOPLE * FACTS == pytest.approx(
            round(scores["recall_with_memory"] * PEOPLE * FACTS)
        )
        taught = [memory async for memory in client.list_memories()]
        assert len(taught) == PEOPLE
        assert {memory.version for memory in taught} == {1}


async def test_retention_teaches_every_lesson_with_unrelated_text_after_it(tmp_path):
    lessons = 2
    async with running(server_config(BUNDLED_CHECKPOINT, tmp_path)) as server, connect(server) as client:
        study = Study(client, PersonaFactory(Split.HELD_OUT, seed=5), seed=5)
        scores = await study.retention(1, facts=2, lessons=lessons, noise=20)
        assert scores.keys() == {"recall_of_first_facts", "recall_of_corrected_fact"}
        assert [memory.version async for memory in client.list_memories()] == [2 * lessons]


def test_a_share_counts_answers_that_hold_the_value():
    fact = Fact(key="dog", value="Biscuit", statement="", question="", answer="")
    texts = ["Your dog is called Biscuit.", "biscuit", "", "Your dog is called Waffle."]
    assert share([Answer(fact=fact, text=text) for text in texts]) == 0.25


async def test_a_study_runs_no_more_calls_at_a_time_than_it_may():
    study = Study(None, PersonaFactory(Split.TRAIN, seed=0), concurrency=3)
    under_way, most = 0, 0

    async def call(i):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return i

    assert await study.gather(call(i) for i in range(20)) == list(range(20))
    assert most == 3
