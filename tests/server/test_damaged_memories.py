"""A database edited under a running server, or written by another model: one user's trouble, and nothing lost."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
import pytest_asyncio
from support.server_running import connect, server_config
from support.tiny_model import write_tiny_checkpoint

from hope_serve.api import Owner, SamplingParams
from hope_serve.errors import CorruptMemory, FailedPrecondition
from hope_serve.identity.caller import DEFAULT_TENANT
from hope_serve.server.serve import running

GOOD = SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True)
ANN = Owner(tenant=DEFAULT_TENANT, user="anneke")

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(checkpoint_folder, home):
    """Memories are read from the store every time: none stays warm, and two users take turns on one slot."""
    async with running(server_config(checkpoint_folder, home, max_slots=1, max_warm_bytes=0)) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(server):
    async with connect(server) as connected:
        for user, pet in (("anneke", "dog"), ("bob", "cat")):
            for name in ("Biscuit", "Tove"):
                await connected.adapt(user, f"My {pet} is called {name}.")
        yield connected


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def good_answers(client):
    return await _good(client, "anneke"), await _good(client, "bob")


DAMAGE = [
    ("a chunk with a byte changed", "UPDATE chunks SET data = x'00' || substr(data, 2)"),
    ("a chunk cut short", "UPDATE chunks SET data = substr(data, 1, 10)"),
    ("an empty chunk", "UPDATE chunks SET data = x''"),
    ("a text for a chunk", "UPDATE chunks SET data = 'tea'"),
    ("no chunks", "DELETE FROM chunks"),
    ("a manifest cut short", "UPDATE versions SET manifest = substr(manifest, 1, 20)"),
    ("no manifest", "UPDATE versions SET manifest = x''"),
    ("no versions", "DELETE FROM versions"),
    ("an edited version", "UPDATE owners SET version = version + 1"),
    ("a version that goes back", "UPDATE owners SET version = version - 1"),
    ("a version below zero", "UPDATE owners SET version = -1"),
    ("a text for a version", "UPDATE owners SET version = 'two'"),
    ("an edited size", "UPDATE owners SET num_bytes = num_bytes + 1"),
    ("an edited seal", "UPDATE owners SET seal = x'00'"),
    ("an edited data key", "UPDATE owners SET data_key = substr(data_key, 1, 20)"),
    ("a neighbour's data key", "UPDATE owners SET data_key = (SELECT data_key FROM owners o WHERE o.owner <> :owner)"),
]


@pytest.fixture
def repair(home):
    """Puts the database back as it was when the test began: at the latest when the test ends."""
    _copy(home / "memory.db", home / "whole.db")
    yield lambda: _copy(home / "whole.db", home / "memory.db")
    _copy(home / "whole.db", home / "memory.db")


@pytest.mark.parametrize("statement", [pytest.param(sql, id=name) for name, sql in DAMAGE])
async def test_damage_is_data_loss_for_one_user_and_gone_when_it_is_repaired(
    server, client, home, good_answers, repair, statement
):
    await _good(client, "bob")  # who takes the only slot, so that ann's memory has to be read again
    _damage(home / "memory.db", statement, server.service.memories.store.owner_key(ANN))
    with pytest.raises(CorruptMemory) as refused:
        await client.generate("My dog", user_id="anneke", sampling=GOOD)
    assert "anneke" not in str(refused.value)
    with pytest.raises(CorruptMemory):
        await client.adapt("anneke", "My dog is called Waffle.")
    assert await _good(client, "bob") == good_answers[1]
    repair()
    assert await _good(client, "anneke") == good_answers[0]


async def test_another_models_memory_is_refused_and_kept(checkpoint_folder, home, good_answers, tmp_path):
    _copy(home / "memory.db", tmp_path / "memory.db")
    (tmp_path / "memory.db.key").write_bytes((home / "memory.db.key").read_bytes())
    other = write_tiny_checkpoint(tmp_path / "other", seed=1)
    async with running(server_config(other, tmp_path)) as server, connect(server) as client:
        for call in (
            client.generate("My dog", user_id="anneke", sampling=GOOD),
            client.score("My dog", [" barks"], user_id="anneke"),
            client.adapt("anneke", "My dog is called Waffle."),
        ):
            with pytest.raises(FailedPrecondition, match="model") as refused:
                await call
            assert refused.value.reason == "OTHER_MODEL"
        await client.generate("My dog", sampling=GOOD)
        await client.adapt("new", "My dog is called Waffle.")
        assert (await client.generate("My dog", user_id="new", sampling=GOOD)).started.memory_version == 1
    async with running(server_config(checkpoint_folder, tmp_path)) as server, connect(server) as client:
        assert await _good(client, "anneke") == good_answers[0]


async def _good(client, user):
    whole = await client.generate("My dog", user_id=user, sampling=GOOD)
    memory = await client.get_memory(user)
    return whole.started.memory_version, whole.choices[0].token_ids, memory.version, memory.state_digest


def _damage(path, statement, owner):
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"{statement} WHERE owner = :owner", {"owner": owner})


def _copy(source, target):
    """Page by page, as a backup and its restoration do it; servers may have either file open."""
    with closing(sqlite3.connect(source)) as pages, closing(sqlite3.connect(target)) as copy:
        pages.backup(copy)
