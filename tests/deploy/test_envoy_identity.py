"""Credentials through the deployed proxy: what a caller may is the same as without it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from support.envoy import Envoy
from support.every_rpc import CALLS, PASSPHRASE, outcomes
from support.server_running import server_config
from support.tiny_model import write_tiny_checkpoint

from hope_serve.client import AsyncHopeClient, ChannelOptions
from hope_serve.errors import NotFound, Unauthenticated
from hope_serve.identity import Scope
from hope_serve.identity.api_keys import NewKey, new_key
from hope_serve.server.serve import running


@pytest.fixture
async def guarded(tmp_path):
    """A guarded server behind the proxy; gives a function from credentials to clients."""
    checkpoint = write_tiny_checkpoint(tmp_path / "tiny", num_layers=1)
    new_key(tmp_path / "keys.json", NewKey(tenant="nobody", scopes=(Scope.ADMIN,)))
    config = server_config(checkpoint, tmp_path, identity={"key_file": str(tmp_path / "keys.json")})
    async with running(config) as server:
        envoy = Envoy(tmp_path / "envoy").start([f"127.0.0.1:{server.port}"])
        try:
            await envoy.until_healthy(1)
            yield lambda credential: AsyncHopeClient(
                envoy.target, ChannelOptions(timeout_seconds=30, retries=False, credential=credential)
            )
        finally:
            envoy.close()


@pytest.fixture
def key(tmp_path):
    return lambda tenant, *scopes: new_key(
        tmp_path / "keys.json", NewKey(tenant=tenant, scopes=scopes or tuple(Scope))
    )[1]


async def test_every_call_through_the_proxy_is_judged_by_its_own_credential(guarded, key):
    """One connection of the proxy to the server carries all of them."""
    shown = [key("acme"), key("umbra"), key("acme", Scope.GENERATE)]
    async with (
        guarded(shown[0]) as ann,
        guarded(shown[1]) as other,
        guarded(shown[2]) as reader,
        guarded("") as stranger,
    ):
        await until_known(ann)
        await ann.adapt("ann", "My dog is called Biscuit.")
        for client in (ann, other, reader, stranger):
            client.exported = b"".join([piece async for piece in ann.export_memory("ann", passphrase=PASSPHRASE)])
        assert await outcomes(stranger, "ann") == dict.fromkeys(CALLS, "CREDENTIAL_MISSING")
        may = {method for method, (scope, _) in CALLS.items() if scope in (None, Scope.GENERATE)}
        assert await outcomes(reader, "ann") == {method: "ok" if method in may else "SCOPE_MISSING" for method in CALLS}
        with pytest.raises(NotFound):
            await other.get_memory("ann")
        assert await outcomes(ann, "ann") == dict.fromkeys(CALLS, "ok")
        with pytest.raises(NotFound):
            await other.get_memory("ann in")


async def until_known(client):
    """Until the server has read the file of keys again."""
    for _ in range(100):
        with suppress(Unauthenticated):
            await client.get_model()
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the key was never known")
