"""What calls tell about themselves, as metrics; the engine measures its own work."""

from __future__ import annotations

from types import MappingProxyType

from google.protobuf.message import Message as Pb

from hope_serve.errors import HopeError
from hope_serve.metrics import Metrics
from hope_serve.pb.hope.v1 import inference_pb2
from hope_serve.wire.enums import FINISH_REASON

REJECTIONS = MappingProxyType(
    {
        "CONCURRENCY": "concurrency",
        "QUEUE_FULL": "queue_full",
        "LEARNING_BACKLOG": "learning_backlog",
        "DEADLINE_TOO_SHORT": "deadline",
        "DRAINING": "draining",
        "TENANT_LIMITS": "tenant_limits",
        "USER_LIMITS": "user_limits",
        "KEY_LIMITS": "key_limits",
    }
)
"""The label of hope_admission_rejected_total for an error's reason; other errors are not refusals of admission."""


def measure_call(metrics: Metrics, method: str, code: str, last_reply: Pb | None, seconds: float) -> None:
    """One call that ended, however it ended."""
    metrics.requests_total(method=method, code=code, finish_reason=_finish_reason(last_reply)).inc()
    metrics.request_duration_seconds(method=method).observe(seconds)


def measure_rejection(metrics: Metrics, error: HopeError) -> None:
    """One call that was refused before any work, if that is what ``error`` says."""
    if error.reason in REJECTIONS:
        metrics.admission_rejected_total(reason=REJECTIONS[error.reason]).inc()


def _finish_reason(reply: Pb | None) -> str:
    number = 0
    if isinstance(reply, inference_pb2.GenerateResponse) and reply.choices:
        number = reply.choices[0].finish_reason
    elif isinstance(reply, inference_pb2.GenerateStreamResponse) and reply.HasField("ended"):
        number = reply.ended.finish_reason
    reason = FINISH_REASON.read(number, "finish_reason")
    return reason.value if reason else "none"
