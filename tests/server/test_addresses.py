"""Addresses beside the one for callers: what needs admin, and health."""

from __future__ import annotations

from types import SimpleNamespace

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.certificates import Authority
from support.every_rpc import CALLS, PASSPHRASE, outcomes
from support.server_running import connect

from hope_serve.config import ConfigError
from hope_serve.errors import PermissionDenied, Unavailable
from hope_serve.identity import Scope
from hope_serve.identity.api_keys import NewKey, new_key


@pytest.fixture
def keys(tmp_path):
    """A key with every scope and one without admin, and the settings of a server that knows them."""
    file = tmp_path / "keys.json"
    every, plain = (
        new_key(file, NewKey(tenant="acme", scopes=scopes))[1]
        for scopes in (tuple(Scope), tuple(scope for scope in Scope if scope is not Scope.ADMIN))
    )
    return SimpleNamespace(every=every, plain=plain, settings={"identity": {"key_file": str(file)}})


def at(server, key, **options):
    """A client of another address of the server."""
    return connect(SimpleNamespace(port=server.server.ports[key]), **options)


async def exported(client, passphrase=None):
    return b"".join([piece async for piece in client.export_memory("ann", passphrase=passphrase)])


async def test_what_needs_admin_is_answered_at_its_own_address_and_nowhere_else(open_server, keys):
    async with open_server(admin_listen="127.0.0.1:0", **keys.settings) as server:
        async with at(server, "listen", credential=keys.every) as caller:
            await caller.adapt("ann", "My dog is called Biscuit.")
            caller.exported = await exported(caller, PASSPHRASE)
            with pytest.raises(PermissionDenied, match=r"server\.admin_listen") as refused:
                await exported(caller)
            assert refused.value.reason == "ADMIN_ADDRESS"
            async with at(server, "admin_listen", credential=keys.every) as operator:
                assert await exported(operator)
                operator.exported = caller.exported
                lists = tuple(method for method, (scope, _) in CALLS.items() if scope is Scope.ADMIN)
                assert await outcomes(operator, "ann", methods=lists) == dict.fromkeys(lists, "ok")
            expected = dict.fromkeys(CALLS, "ok") | dict.fromkeys(lists, "ADMIN_ADDRESS")
            assert await outcomes(caller, "ann") == expected


async def test_the_admin_address_opens_nothing_to_who_has_not_the_scope(open_server, keys):
    async with open_server(admin_listen="127.0.0.1:0", **keys.settings) as server:
        for key, reason in ((keys.plain, "SCOPE_MISSING"), ("", "CREDENTIAL_MISSING")):
            async with at(server, "admin_listen", credential=key) as client:
                assert await outcomes(client, "ann", methods=("ListMemories",)) == {"ListMemories": reason}


async def test_without_an_address_of_its_own_admin_is_answered_where_everything_is(open_server, keys):
    async with open_server(**keys.settings) as server, at(server, "listen", credential=keys.every) as client:
        assert set(server.server.ports) == {"listen"}
        assert await outcomes(client, "ann", methods=("ListMemories",)) == {"ListMemories": "ok"}


async def test_an_admin_address_that_others_reach_needs_tls_and_credentials(open_server):
    with pytest.raises(ConfigError, match=r"server\.admin_listen is 0\.0\.0\.0:0, which other machines reach"):
        async with open_server(admin_listen="0.0.0.0:0"):
            pass


async def test_health_is_told_in_the_clear_where_everything_else_needs_a_certificate(open_server, tmp_path, keys):
    authority = Authority(tmp_path)
    pair = authority.sign("server")
    tls = {
        "certificate": str(pair.certificate),
        "private_key": str(pair.private_key),
        "client_ca": str(authority.roots),
    }
    async with open_server(health_listen="127.0.0.1:0", tls=tls, **keys.settings) as server:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.server.ports['health_listen']}") as channel:
            for service in ("", "hope.v1.InferenceService"):
                reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
                assert reply.status == reply.SERVING
        async with at(server, "listen", timeout_seconds=2) as stranger:
            with pytest.raises(Unavailable):
                await stranger.get_model()


async def test_the_health_address_answers_nothing_else(open_server):
    async with open_server(health_listen="127.0.0.1:0") as server:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.server.ports['health_listen']}") as channel:
            for path in (
                "/hope.v1.InferenceService/GetModel",
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await channel.unary_unary(path)(b"")
                assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
