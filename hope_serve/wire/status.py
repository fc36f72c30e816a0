"""Errors as google.rpc.Status, and back: reason in ErrorInfo, field in BadRequest, wait in RetryInfo."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from types import MappingProxyType

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message as Pb
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from hope_serve.errors import (
    CorruptMemory,
    DeadlineExceeded,
    Exhausted,
    FailedPrecondition,
    HopeError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RequestIdReused,
    Unauthenticated,
    Unavailable,
    VersionConflict,
)

DOMAIN = "hope.serve"
DETAILS_KEY = "grpc-status-details-bin"
PUSHBACK_KEY = "grpc-retry-pushback-ms"
RETRY_KEY = "hope-retry"
NOT_BEGUN = "DRAINING"
"""The reason of a refusal before any work; it tells proxies under RETRY_KEY to try elsewhere, even for Generate."""
CORRELATION_KEY = "correlation_id"
UNREACHABLE = "UNREACHABLE"
"""The reason of an Unavailable that no server of ours sent."""
BROKEN_OFF = "BROKEN_OFF"
"""The reason of an Unavailable that stands for a call cut off on its way; whether it was begun is not known."""
MAX_TEXT = 400
"""Characters of one text in a status; all of it travels in HTTP/2 trailers, whose size is limited to 8 KB."""

CODES: Mapping[type[HopeError], grpc.StatusCode] = MappingProxyType(
    {
        InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
        NotFound: grpc.StatusCode.NOT_FOUND,
        VersionConflict: grpc.StatusCode.ABORTED,
        FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
        RequestIdReused: grpc.StatusCode.ALREADY_EXISTS,
        Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
        DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
        Unavailable: grpc.StatusCode.UNAVAILABLE,
        CorruptMemory: grpc.StatusCode.DATA_LOSS,
        Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
        PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
        HopeError: grpc.StatusCode.INTERNAL,
    }
)
_CLASSES = MappingProxyType({code: kind for kind, code in CODES.items()})


def code_of(error: HopeError) -> grpc.StatusCode:
    """The status code of an error or of the nearest class it is derived from."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def write_status(error: HopeError, correlation_id: str) -> status_pb2.Status:
    """Everything a client may know about ``error``."""
    facts = {key: _bounded(value) for key, value in error.details.items()} | {CORRELATION_KEY: correlation_id}
    details: list[Pb] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=facts)]
    if isinstance(error, InvalidRequest):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=_bounded(error.field.partition(" (")[0]),  # "stop (count)" is a fact about the field "stop"
            description=_bounded(error.description),
            reason=error.reason,
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, Exhausted):
        details.append(error_details_pb2.RetryInfo(retry_delay=timedelta(seconds=error.retry_after)))
    return status_pb2.Status(code=code_of(error).value[0], message=_bounded(str(error)), details=map(_packed, details))


def trailers(status: status_pb2.Status, error: HopeError) -> tuple[tuple[str, str | bytes], ...]:
    """The metadata that carries ``status``, and who may come back: clients when there is room, proxies elsewhere."""
    carried: tuple[tuple[str, str | bytes], ...] = ((DETAILS_KEY, status.SerializeToString()),)
    if isinstance(error, Exhausted):
        carried += ((PUSHBACK_KEY, str(round(error.retry_after * 1000))),)
    if error.reason == NOT_BEGUN:
        carried += ((RETRY_KEY, "elsewhere"),)
    return carried


def read_status(code: grpc.StatusCode, message: str, metadata: Iterable[tuple[str, str | bytes]]) -> HopeError:
    """The error that a server meant; one without details comes from gRPC itself or from a proxy."""
    packed = next((value for key, value in metadata if key == DETAILS_KEY and isinstance(value, bytes)), b"")
    if not packed and _was_broken_off(code, message):
        return Unavailable(f"the call was broken off on its way ({message}); its outcome is unknown", reason=BROKEN_OFF)
    info, field, retry = (
        error_details_pb2.ErrorInfo(reason=UNREACHABLE if code is grpc.StatusCode.UNAVAILABLE else code.name),
        error_details_pb2.BadRequest.FieldViolation(field="request", description=message),
        error_details_pb2.RetryInfo(retry_delay=timedelta(seconds=1)),
    )
    bad_request = error_details_pb2.BadRequest()
    for detail in status_pb2.Status.FromString(packed).details:
        detail.Unpack(info) or detail.Unpack(retry) or detail.Unpack(bad_request)
    for violation in bad_request.field_violations[:1]:
        field = violation
    kind = _CLASSES.get(code, HopeError)
    error = _build(kind, message, info, field, retry)
    error.details.update(info.metadata)
    return error


def _was_broken_off(code: grpc.StatusCode, message: str) -> bool:
    """Whether a process or a link went away under the call; gRPC names such resets as if the server had meant them."""
    if code is grpc.StatusCode.CANCELLED:
        return True
    return code in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL) and "RST_STREAM" in message


def _build(
    kind: type[HopeError],
    message: str,
    info: error_details_pb2.ErrorInfo,
    field: error_details_pb2.BadRequest.FieldViolation,
    retry: error_details_pb2.RetryInfo,
) -> HopeError:
    if kind is InvalidRequest:
        return InvalidRequest(field.field, field.description, reason=info.reason)
    if kind is VersionConflict:
        return VersionConflict(message, head=int(info.metadata.get("head_version", "0")), reason=info.reason)
    if kind is Exhausted:
        return Exhausted(message, retry_after=retry.retry_delay.ToTimedelta().total_seconds(), reason=info.reason)
    return kind(message, reason=info.reason)


def _packed(detail: Pb) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def _bounded(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text)} characters)"
