"""Errors cross the wire with their class, reason, facts and advice."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from hope_serve import errors
from hope_serve.wire.status import CODES, DETAILS_KEY, PUSHBACK_KEY, code_of, read_status, trailers, write_status

ERRORS = [
    errors.InvalidRequest("sampling.stop (count)", "17 is outside [0, 16]; choose a value within it", reason="ODD"),
    errors.NotFound("the user has no memory"),
    errors.VersionConflict("the memory moved on", head=7),
    errors.FailedPrecondition("another model's", reason="OTHER_MODEL", details={"model": "abc"}),
    errors.RequestIdReused("other payload"),
    errors.Exhausted("the queue is full", retry_after=2.5, reason="QUEUE_FULL"),
    errors.DeadlineExceeded("too late", details={"estimate_seconds": "3.1"}),
    errors.Unavailable("draining"),
    errors.CorruptMemory("the seal does not fit"),
    errors.Unauthenticated("no credential"),
    errors.PermissionDenied("not yours"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_an_error_comes_back_as_itself(error):
    status = write_status(error, "c0ffee")
    back = read_status(code_of(error), status.message, trailers(status, error))
    assert type(back) is type(error)
    assert back.reason == error.reason
    assert back.details.items() >= error.details.items() - {("field", error.details.get("field"))}
    assert back.details["correlation_id"] == "c0ffee"


def test_every_error_class_has_a_code_of_its_own():
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.HopeError)]
    assert set(classes) == set(CODES)
    assert len(set(CODES.values())) == len(CODES)


def test_a_bad_field_is_named_in_bad_request():
    status = write_status(ERRORS[0], "id")
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    assert bad.field_violations[0].field == "sampling.stop"
    assert "17" in bad.field_violations[0].description


def test_a_full_queue_says_when_to_come_back_in_both_ways():
    error = errors.Exhausted("full", retry_after=2.5)
    status = write_status(error, "id")
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.ToTimedelta().total_seconds() == 2.5
    assert dict(trailers(status, error))[PUSHBACK_KEY] == "2500"
    assert read_status(code_of(error), status.message, trailers(status, error)).retry_after == 2.5


def test_a_status_fits_the_trailers_whatever_an_error_quotes():
    error = errors.InvalidRequest("語" * 100_000, "本" * 100_000)
    assert len(dict(trailers(write_status(error, "id"), error))[DETAILS_KEY]) < 6000


def test_a_status_without_details_is_still_typed():
    back = read_status(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", ())
    assert isinstance(back, errors.DeadlineExceeded)
    assert read_status(grpc.StatusCode.UNAVAILABLE, "connection refused", ()).reason == "UNREACHABLE"
    assert type(read_status(grpc.StatusCode.UNIMPLEMENTED, "what?", ())) is errors.HopeError
    assert type(read_status(grpc.StatusCode.INTERNAL, "no message of ours", ())) is errors.HopeError


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (grpc.StatusCode.CANCELLED, "CANCELLED"),
        (grpc.StatusCode.UNKNOWN, "Stream removed (RST_STREAM (Received RST_STREAM with error code 2))"),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2"),
    ],
)
def test_a_call_that_was_cut_off_on_its_way_is_unavailable(code, message):
    back = read_status(code, message, ())
    assert isinstance(back, errors.Unavailable)
    assert back.reason == "BROKEN_OFF"


def test_the_message_is_the_status_message():
    status = write_status(ERRORS[1], "id")
    assert isinstance(status, status_pb2.Status)
    assert (status.code, status.message) == (5, "the user has no memory")


def test_only_a_refusal_before_any_work_may_be_tried_elsewhere_by_a_proxy():
    for reason, may in (("DRAINING", True), ("STORE_UNAVAILABLE", False), ("CONCURRENCY", False)):
        error = errors.Unavailable("not now", reason=reason)
        assert ("hope-retry" in dict(trailers(write_status(error, "id"), error))) is may
