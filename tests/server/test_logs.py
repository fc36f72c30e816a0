"""JSON logs of a real server: a line an object, the ids of the call in it, and nobody's words."""

from __future__ import annotations

import asyncio
import json

import pytest
import pytest_asyncio

from hope_serve.api import SamplingParams
from hope_serve.cli.server_process import ServerProcess
from hope_serve.client import AsyncHopeClient
from hope_serve.client.channel import ChannelOptions
from hope_serve.errors import NotFound

SHORT = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)
SECRET = "Wolpertinger"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def logged(checkpoint_folder, tmp_path_factory):
    """The lines of a server that was asked for some things."""
    tmp_path = tmp_path_factory.mktemp("logged")
    settings = {"log_level": "debug", "log_format": "json"}
    file = tmp_path / "hope.toml"
    file.write_text("[server]\n" + "\n".join(f'{key} = "{value}"' for key, value in settings.items()))
    server = await asyncio.to_thread(
        ServerProcess,
        log=tmp_path / "log",
        config=str(file),
        checkpoint=str(checkpoint_folder),
        memory=f"sqlite://{tmp_path}/memory.db",
        device="cpu",
    )
    async with AsyncHopeClient(server.target, ChannelOptions(retries=False)) as client:
        await client.adapt(f"user-{SECRET}", f"My pet is called {SECRET}. " * 8, request_id="lesson-1")
        await client.generate(f"My {SECRET}", user_id=f"user-{SECRET}", sampling=SHORT, request_id="turn-1")
        _ = [event async for event in client.stream("My pet", sampling=SHORT, request_id="turn-2")]
        with pytest.raises(NotFound) as refused:
            await client.get_memory("nobody")
    await asyncio.to_thread(server.stop)
    text = (tmp_path / "log").read_text()
    return [json.loads(line) for line in text.splitlines()], text, refused.value


async def test_every_line_is_an_object_with_time_level_and_logger(logged):
    lines, _, _ = logged
    assert lines
    assert all({"event", "timestamp", "level", "logger"} <= line.keys() for line in lines)


async def test_a_calls_lines_carry_the_ids_that_its_caller_knows(logged):
    lines, _, refused = logged
    ended = {line["request_id"]: line for line in lines if "request_id" in line and "ended with" in line["event"]}
    assert {name: line["method"] for name, line in ended.items()} == {
        "lesson-1": "Adapt",
        "turn-1": "Generate",
        "turn-2": "GenerateStream",
    }
    [line] = [line for line in lines if line.get("method") == "GetMemory"]
    assert line["correlation_id"] == refused.details["correlation_id"]
    assert "request_id" not in line, "ids do not leak from one call into the next"


async def test_nobody_and_nothing_that_was_said_is_in_a_log(logged):
    assert SECRET not in logged[1]
