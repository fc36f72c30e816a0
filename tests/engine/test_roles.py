"""Servers of one role: the other's calls are refused by name, and memories meet in the store."""

from __future__ import annotations

import pytest
from support.server_running import connect, server_config
from support.tiny_model import write_tiny_checkpoint

from hope_serve.api import MemoryChoice, SamplingParams
from hope_serve.api.engine import Purpose
from hope_serve.engine.meter import Meter
from hope_serve.engine.scheduler import Scheduler
from hope_serve.engine.sequence import Sequence
from hope_serve.errors import FailedPrecondition
from hope_serve.metrics import Metrics
from hope_serve.server.serve import running

GREEDY = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
LESSON = "My dog is called Biscuit. " * 8


@pytest.fixture
def config(tmp_path):
    folder = write_tiny_checkpoint(tmp_path / "tiny")
    return lambda role: server_config(folder, tmp_path, role=role, max_slots=2)


async def test_what_one_role_learned_the_other_reads(config):
    async with running(config("adapt")) as learns, connect(learns) as client:
        version = (await client.adapt("ann", LESSON)).version
    async with running(config("generate")) as reads, connect(reads) as client:
        ask = lambda **choice: client.generate("My dog", user_id="ann", sampling=GREEDY, memory=MemoryChoice(**choice))
        separate = await ask(min_version=version)
    async with running(config("both")) as server, connect(server) as client:
        together = await client.generate("My dog", user_id="ann", sampling=GREEDY)
    assert separate.started.memory_version == together.started.memory_version == version
    assert separate.choices[0].token_ids == together.choices[0].token_ids


async def test_a_server_that_generates_does_not_learn(config):
    async with running(config("generate")) as server, connect(server) as client:
        with pytest.raises(
            FailedPrecondition, match=r"engine\.role of this server is generate.*adapt or both"
        ) as found:
            await client.adapt("ann", LESSON)
    assert found.value.reason == "ROLE"


async def test_a_server_that_learns_neither_generates_nor_scores(config):
    async with running(config("adapt")) as server, connect(server) as client:
        for call in (
            client.generate("My dog", sampling=GREEDY),
            client.score("My dog", ["is"]),
        ):
            with pytest.raises(FailedPrecondition, match=r"engine\.role of this server is adapt") as found:
                await call
            assert found.value.reason == "ROLE"


def test_gauges_of_readers_and_learners_do_not_erase_each_other():
    metrics, reading, learning = Metrics(), *(Scheduler(max_step_tokens=8, max_queue_tokens=8) for _ in range(2))
    for scheduler, purpose in ((reading, Purpose.GENERATE), (learning, Purpose.LEARN)):
        scheduler.running.append(Sequence(purpose=purpose, tokens=[1], listener=None))
    meters = [Meter(metrics, reading, learns=False), Meter(metrics, learning, reads=False)]
    for order in (meters, meters[::-1]):
        for meter in order:
            meter.show()
        assert (metrics.requests_running.value(), metrics.requests_adapting.value()) == (1, 1)
