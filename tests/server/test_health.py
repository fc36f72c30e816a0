"""grpc.health.v1 and reflection."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2
from support.server_running import connect

from hope_serve.errors import NotFound, Unavailable
from hope_serve.server.server import SERVICES


async def test_a_running_server_is_alive_and_every_service_is_ready(client):
    assert await client.is_serving("")
    assert [await client.is_serving(service) for service in SERVICES] == [True, True, True]
    with pytest.raises(NotFound):
        await client.is_serving("hope.v1.NoService")


async def test_an_engine_that_does_not_come_round_is_neither_alive_nor_ready(server, client, monkeypatch):
    monkeypatch.setattr(type(server.service), "seconds_since_step", lambda _: 1e6)
    await server.server.refresh_health()
    assert not await client.is_serving("")
    assert not await client.is_serving()


async def test_a_draining_server_answers_health_checks_and_refuses_the_rest(open_server):
    async with open_server() as server, connect(server) as client:
        await server.drain(5)
        assert await client.is_serving("")
        assert not await client.is_serving()
        with pytest.raises(Unavailable) as refused:
            await client.get_model()
        assert refused.value.reason == "DRAINING"


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_the_services_and_gives_their_files(channel, version):
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    names = {service.name for service in (await call.read()).list_services_response.service}
    assert set(SERVICES) < names
    await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol="hope.v1.MemoryService"))
    files = (await call.read()).file_descriptor_response.file_descriptor_proto
    assert "hope/v1/memory.proto" in {descriptor_pb2.FileDescriptorProto.FromString(file).name for file in files}
    await call.done_writing()
