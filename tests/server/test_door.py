"""Every RPC against every kind of credential: scope, user, tenant."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2
from support.every_rpc import ABOUT_NOBODY, CALLS, PASSPHRASE, SHORT, outcomes
from support.server_running import connect
from support.token_issuer import TokenIssuer, identity_table

from hope_serve.api import Learn, Owner
from hope_serve.client import Message
from hope_serve.errors import NotFound, PermissionDenied, Unauthenticated
from hope_serve.identity import Scope
from hope_serve.identity.api_keys import NewKey, new_key, revoke_key
from hope_serve.pb.hope.v1 import adaptation_pb2, inference_pb2, memory_pb2
from hope_serve.server.door import SCOPES

ALL = tuple(Scope)
TALK = [Message(role="user", text="tea")]


@pytest.fixture
def key(tmp_path):
    """``key(*scopes)`` makes a key; the file is the server's."""

    def make(*scopes, tenant="acme", user=""):
        return new_key(tmp_path / "keys.json", NewKey(tenant=tenant, scopes=scopes or ALL, user=user))[1]

    return make


@pytest.fixture
def guarded(open_server, tmp_path, key):
    """A server with keys where acme's ann has two versions of a memory and a conversation."""

    @asynccontextmanager
    async def opened(**identity):
        everything = key()
        table = {"key_file": str(tmp_path / "keys.json")} | identity
        async with open_server(identity=table) as server, connect(server, credential=everything) as ann:
            for text in ("My dog is called Biscuit.", "I like tea."):
                await ann.adapt("ann", text)
            await ann.generate("tea", user_id="ann", session_id="talk")
            yield server, ann

    return opened


async def refreshed():
    """Long enough for a changed file to be noticed: it is looked at every 0.05 s."""
    await asyncio.sleep(0.3)


def test_every_rpc_has_a_row_in_the_table_of_scopes_and_in_the_table_of_these_tests():
    rpcs = {
        method.name
        for module in (inference_pb2, adaptation_pb2, memory_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert set(SCOPES) == rpcs
    assert {method: scope for method, (scope, _) in CALLS.items()} == dict(SCOPES)


@pytest.mark.parametrize("credential", ["", "hope_1234_guess", "a.b.c"])
async def test_nobody_without_a_valid_credential_gets_anywhere(guarded, credential):
    async with guarded() as (server, ann), connect(server, credential=credential) as stranger:
        stranger.exported = b""
        reason = "KEY_UNKNOWN" if credential else "CREDENTIAL_MISSING"
        assert await outcomes(stranger, "ann") == dict.fromkeys(CALLS, reason)
        with pytest.raises(Unauthenticated):
            await stranger.get_model()
        assert (await ann.get_memory("ann")).version == 2


@pytest.mark.parametrize("scope", ALL)
async def test_a_key_with_one_scope_gets_what_the_scope_opens_and_nothing_else(guarded, key, scope):
    async with guarded() as (server, ann), connect(server, credential=key(scope)) as client:
        await refreshed()
        client.exported = await _exported(ann)
        opened = {method for method, (needed, _) in CALLS.items() if needed in (None, scope)}
        expected = {method: "ok" if method in opened else "SCOPE_MISSING" for method in CALLS}
        assert await outcomes(client, "ann") == expected


async def test_who_did_what_is_on_record_by_the_name_of_the_key_and_reads_too(open_server, tmp_path, key):
    shown, reader = key(), key(Scope.MEMORY_READ, Scope.GENERATE)
    settings = {"identity": {"key_file": str(tmp_path / "keys.json")}, "audit_log": str(tmp_path / "audit")}
    async with open_server(audit_reads=True, **settings) as server:
        async with connect(server, credential=shown) as ann, connect(server, credential=reader) as look:
            await ann.adapt("ann", "My dog is called Biscuit. " * 80)
            await look.get_memory("ann")
            await look.generate("tea " * 500, user_id="ann", sampling=SHORT)
            await look.generate("tea", sampling=SHORT)  # reads nobody's memory
            with pytest.raises(NotFound):
                await look.get_memory("bob")
    lines = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    writes, reads = shown.split("_")[1], reader.split("_")[1]
    assert [(line["action"], line["kind"], line["by"], line["status"]) for line in lines] == [
        ("commit", "adapt", writes, ""),
        ("read", "GetMemory", reads, "OK"),
        ("read", "Generate", reads, "OK"),
        ("read", "GetMemory", reads, "NOT_FOUND"),
    ]
    assert len({line["owner"] for line in lines}) == 2
    assert not any(word in (tmp_path / "audit").read_text() for word in ("ann", "bob", "Biscuit", shown, reader))


async def test_long_messages_are_their_callers_too(guarded, key):
    """They are read on other threads than short ones."""
    async with guarded() as (server, _), connect(server, credential=key(user="bob")) as bob:
        await refreshed()
        long = "I like coffee. " * 100
        await bob.adapt("bob", long)
        await bob.generate(long, user_id="bob", sampling=SHORT)
        await bob.score(long, [long], user_id="bob")
        await bob.evaluate_memory("bob", [long])
        for call in (bob.adapt("ann", long), bob.generate(long, user_id="ann"), bob.score(long, ["x"], user_id="ann")):
            with pytest.raises(PermissionDenied):
                await call


async def test_a_refusal_names_the_scope(guarded, key):
    async with guarded() as (server, _), connect(server, credential=key(Scope.GENERATE)) as client:
        await refreshed()
        with pytest.raises(PermissionDenied, match="memory:write") as refused:
            await client.delete_memory("ann")
        assert refused.value.details["scope"] == "memory:write"


async def test_learning_from_an_exchange_needs_the_scope_to_adapt(guarded, key):
    async with guarded() as (server, _), connect(server, credential=key(Scope.GENERATE)) as client:
        await refreshed()
        with pytest.raises(PermissionDenied, match="adapt"):
            await client.generate(TALK, user_id="ann", learn=Learn.USER_TURNS)
        with pytest.raises(PermissionDenied, match="adapt"):
            [event async for event in client.stream(TALK, user_id="ann", learn=Learn.USER_TURNS)]
        await server.server.drain()
        assert (await server.service.memories.versions(Owner(tenant="acme", user="ann")))[-1].version == 2


async def test_an_export_that_anybody_can_read_needs_admin(guarded, key):
    async with guarded() as (server, ann), connect(server, credential=key(Scope.MEMORY_READ)) as client:
        await refreshed()
        with pytest.raises(PermissionDenied, match="admin"):
            [piece async for piece in client.export_memory("ann")]
        file = b"".join([piece async for piece in ann.export_memory("ann")])
        assert b'"lock":"none"' in file


async def test_a_key_of_one_user_reaches_that_user_and_no_other(guarded, key):
    async with guarded() as (server, ann), connect(server, credential=key(user="bob")) as bob:
        await refreshed()
        bob.exported = await _exported(ann)
        expected = {method: "ok" if method in ABOUT_NOBODY else "USER_NOT_ALLOWED" for method in CALLS}
        assert await outcomes(bob, "ann") == expected
        await bob.adapt("bob", "I like coffee.")
        await bob.generate("tea", user_id="bob")
        await bob.generate("tea")  # the plain model is nobody's memory
        with pytest.raises(PermissionDenied):
            await bob.fork_memory("bob", "another")
        assert (await ann.get_memory("ann")).version == 2


async def test_another_tenant_meets_nobody_of_ours_and_changes_nothing(guarded, key):
    async with guarded() as (server, ann), connect(server, credential=key(tenant="umbra")) as other:
        await refreshed()
        before, talk = await ann.get_memory("ann"), await _resumed(ann)
        other.exported = await _exported(ann)
        found = await outcomes(other, "ann")
        assert {method for method, outcome in found.items() if outcome == "ok"} == {
            "Generate",
            "GenerateStream",
            "Score",
            *ABOUT_NOBODY,
            "Adapt",
            "AdaptStream",
            "GetMemory",
            "ListMemories",
            "ListVersions",
            "RollbackMemory",
            "ForkMemory",
            "EvaluateMemory",
            "ExportMemory",
            "ImportMemory",
            "WarmMemory",
            "DeleteSession",
            "DeleteMemory",
        }  # fmt: skip  (all about umbra's own ann, whom Adapt made)
        assert await ann.get_memory("ann") == before
        assert await _resumed(ann) == talk
        assert {line.user async for line in ann.list_memories()} == {"ann"}


async def test_to_another_tenant_our_users_do_not_exist(guarded, key):
    async with guarded() as (server, ann), connect(server, credential=key(tenant="umbra")) as other:
        await refreshed()
        absent = ("GetMemory", "RollbackMemory", "ForkMemory", "EvaluateMemory", "ExportMemory", "DeleteMemory")
        assert set((await outcomes(other, "ann", methods=absent)).values()) <= {"NOT_FOUND", "VERSION_NOT_FOUND"}
        assert [line async for line in other.list_memories()] == []
        assert not (await other.warm_memory("ann")).version
        assert (await other.generate("tea", user_id="ann")).started.memory_version == 0
        assert not await other.delete_session("ann", "talk")
        with_memory = await ann.score("tea", ["My dog is called Biscuit."], user_id="ann")
        assert await other.score("tea", ["My dog is called Biscuit."], user_id="ann") != with_memory
        assert await other.score("tea", ["My dog is called Biscuit."]) == await other.score(
            "tea", ["My dog is called Biscuit."], user_id="ann"
        )


async def test_a_conversation_is_one_tenants(guarded, key):
    async with guarded() as (server, ann), connect(server, credential=key(tenant="umbra")) as other:
        await refreshed()
        taken = await other.generate("tea", user_id="ann", session_id="talk")
        assert taken.started.session.value == "fresh"
        assert (await ann.generate("tea", user_id="ann", session_id="talk")).started.session.value == "resumed"


async def test_a_page_token_of_one_tenant_is_none_of_anothers(guarded, key):
    async with guarded() as (server, ann), connect(server, credential=key(tenant="umbra")) as other:
        await refreshed()
        for user in ("bea", "cia"):
            await ann.adapt(user, "tea")
        token = (await ann._memory.ListMemories(_page(""), metadata=_shown(ann))).next_page_token
        assert token
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await other._memory.ListMemories(_page(token), metadata=_shown(other))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_key_works_once_it_is_in_the_file_and_no_longer_than_that(guarded, key, tmp_path):
    async with guarded() as (server, _):
        line, shown = new_key(tmp_path / "keys.json", NewKey(tenant="acme", scopes=ALL))
        await refreshed()
        async with connect(server, credential=shown) as client:
            assert (await client.get_memory("ann")).version == 2
            revoke_key(tmp_path / "keys.json", line.id)
            await refreshed()
            with pytest.raises(Unauthenticated):
                await client.get_memory("ann")


async def test_a_broken_file_locks_nobody_out_and_lets_nobody_in(guarded, tmp_path):
    async with guarded() as (server, ann):
        (tmp_path / "keys.json").write_text("{")
        await refreshed()
        assert (await ann.get_memory("ann")).version == 2
        async with connect(server) as stranger:
            with pytest.raises(Unauthenticated):
                await stranger.get_model()


async def test_tokens_and_keys_open_the_same_doors(guarded, tmp_path):
    issuer = TokenIssuer()
    (tmp_path / "jwks.json").write_bytes(issuer.document())
    async with guarded(**identity_table(tmp_path / "jwks.json")) as (server, _):
        async with connect(server, credential=issuer.token(scope="memory:read")) as client:
            assert (await client.get_memory("ann")).version == 2
            with pytest.raises(PermissionDenied, match="generate"):
                await client.generate("tea", user_id="ann")
        async with connect(server, credential=issuer.token(scope="memory:read", tenant="umbra")) as other:
            with pytest.raises(NotFound):
                await other.get_memory("ann")


async def test_a_subject_is_the_only_user_of_a_token(guarded, tmp_path):
    issuer = TokenIssuer()
    (tmp_path / "jwks.json").write_bytes(issuer.document())
    async with guarded(**identity_table(tmp_path / "jwks.json", subject_is_user=True)) as (server, _):
        async with connect(server, credential=issuer.token(sub="bob", scope="memory:read generate")) as bob:
            with pytest.raises(PermissionDenied):
                await bob.get_memory("ann")
            await bob.generate("tea", user_id="bob")


@pytest.mark.parametrize("shown", ["", "hope_1234_guess", *Scope, "every scope", "another tenant", "one user"])
async def test_health_answers_whatever_is_shown_and_reflection_nobody(guarded, key, shown):
    made = {"every scope": key(), "another tenant": key(tenant="umbra"), "one user": key(user="bob")}
    credential = key(shown) if isinstance(shown, Scope) else made.get(shown, shown)
    async with guarded() as (server, _), connect(server, credential=credential) as caller:
        assert await caller.is_serving("")
        assert await caller.is_serving()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            for version in ("v1", "v1alpha"):
                ask = channel.unary_stream(  # one message: a refusal that comes before a second one loses its status
                    f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                    request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                )
                question = reflection_pb2.ServerReflectionRequest(list_services="")
                call = ask(question, metadata=caller._credential.metadata())
                assert await call.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_reflection_is_on_where_it_is_asked_for(open_server, tmp_path, key):
    key()
    async with open_server(reflection=True, identity={"key_file": str(tmp_path / "keys.json")}) as server:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            call = channel.stream_stream(
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )()
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            assert (await call.read()).list_services_response.service
            await call.done_writing()


async def _exported(client) -> bytes:
    return b"".join([piece async for piece in client.export_memory("ann", passphrase=PASSPHRASE)])


async def _resumed(client):
    """Whether the conversation is still there for its next turn."""
    return (await client.generate("pot", user_id="ann", session_id="talk")).started.session


def _page(token):
    return memory_pb2.ListMemoriesRequest(page_size=2, page_token=token)


def _shown(client):
    return client._credential.metadata()
