"""What each tenant's calls come to: how many run, how they ended, the tokens that they read and were answered with."""

from __future__ import annotations

from types import MappingProxyType

from google.protobuf.message import Message as Pb

from hope_serve.metrics import Metrics
from hope_serve.pb.hope.v1 import inference_pb2
from hope_serve.server.owners import VISIT

OUTCOMES = MappingProxyType(
    {
        "OK": "ok",
        "RESOURCE_EXHAUSTED": "over_limits",
        "UNAVAILABLE": "failed",
        "INTERNAL": "failed",
        "UNKNOWN": "failed",
        "DATA_LOSS": "failed",
        "DEADLINE_EXCEEDED": "failed",
    }
)
"""By status; every other one is for the caller to mend."""


class TenantCall:
    """One call, of the tenant that the door let in; of nobody before that."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._tenant = ""

    def begin(self) -> None:
        """The door has let it in."""
        self._tenant = VISIT.get().caller.tenant
        self._metrics.tenant_calls_running(tenant=self._tenant).inc()

    def replied(self, reply: Pb) -> None:
        """One reply was made, or one of a stream."""
        read, written = _tokens(reply)
        if self._tenant and read:
            self._metrics.tenant_tokens_total(tenant=self._tenant, use="read").inc(read)
        if self._tenant and written:
            self._metrics.tenant_tokens_total(tenant=self._tenant, use="written").inc(written)

    def end(self, code: str) -> None:
        """It has ended with this status."""
        if self._tenant:
            self._metrics.tenant_calls_running(tenant=self._tenant).dec()
            self._metrics.tenant_requests_total(tenant=self._tenant, outcome=OUTCOMES.get(code, "refused")).inc()


def _tokens(reply: Pb) -> tuple[int, int]:
    """Of a prompt, which all its choices share, and of answers. A stream tells the former as its first choice ends."""
    if isinstance(reply, inference_pb2.GenerateResponse) and reply.choices:
        written = sum(choice.usage.completion_tokens for choice in reply.choices)
        return reply.choices[0].usage.prompt_tokens, written
    if isinstance(reply, inference_pb2.GenerateStreamResponse):
        ended = reply.ended if reply.HasField("ended") and reply.ended.choice == 0 else None
        return ended.usage.prompt_tokens if ended else 0, len(reply.delta.token_ids)
    return 0, 0
