"""What a client sees of failures, and what it must not see."""

from __future__ import annotations

import logging

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from hope_serve.errors import HopeError
from hope_serve.pb.hope.v1 import inference_pb2
from hope_serve.wire.status import DETAILS_KEY


async def test_a_bug_is_internal_with_a_correlation_id_and_no_word_of_python(server, client, monkeypatch, caplog):
    def broken(*_, **__):
        raise KeyError("secret tensor of somebody")

    monkeypatch.setattr(server.service, "score", broken)
    with caplog.at_level(logging.ERROR), pytest.raises(HopeError) as failed:
        await client.score("tea", ["sugar"])
    assert failed.value.reason == "INTERNAL"
    correlation_id = failed.value.details["correlation_id"]
    assert correlation_id in str(failed.value)
    assert correlation_id in caplog.text
    for secret in ("secret", "KeyError", "Traceback", ".py"):
        assert secret not in str(failed.value)
    await client.generate("the server lives")


async def test_every_refusal_carries_reason_domain_and_field(channel):
    request = inference_pb2.GenerateRequest(text="tea", sampling=inference_pb2.SamplingParams(top_p=2.0))
    error = await _refused(channel, "InferenceService/Generate", request.SerializeToString())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status_pb2.Status.FromString(dict(error.trailing_metadata())[DETAILS_KEY]).details:
        detail.Unpack(info) or detail.Unpack(bad)
    assert (info.domain, info.reason) == ("hope.serve", "INVALID_FIELD")
    assert bad.field_violations[0].field == "sampling.top_p"
    assert "2.0 is outside (0.0, 1.0]" in bad.field_violations[0].description


async def test_bytes_that_are_no_message_are_the_callers_fault(channel):
    error = await _refused(channel, "InferenceService/Generate", b"\xff\xff\xff")
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "3 bytes" in error.details()


async def test_an_unknown_method_is_unimplemented(channel):
    error = await _refused(channel, "InferenceService/Dream", b"")
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def _refused(channel, method: str, raw: bytes) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await channel.unary_unary(f"/hope.v1.{method}")(raw)
    return refused.value
