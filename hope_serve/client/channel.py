"""How the client's channel behaves: what is retried, how much may be sent, when a dead link is noticed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from hope_serve.client.security import Tls

IDEMPOTENT = {
    "hope.v1.InferenceService": ("Score", "Tokenize", "Detokenize", "GetModel"),
    "hope.v1.AdaptationService": ("Adapt", "AdaptStream"),
    "hope.v1.MemoryService": (
        "GetMemory",
        "ListMemories",
        "ListVersions",
        "RollbackMemory",
        "ForkMemory",
        "EvaluateMemory",
        "ExportMemory",
        "ImportMemory",
        "WarmMemory",
        "DeleteMemory",
        "DeleteSession",
    ),
}
"""Reads, erasures, and the calls that a request id makes exactly-once."""

ONLY_WHEN_REFUSED = {"hope.v1.InferenceService": ("Generate", "GenerateStream")}
"""A turn that was taken must not be taken twice; one that was refused for want of room may be sent again."""


@dataclass(frozen=True, kw_only=True)
class ChannelOptions:
    """Of one client.

    Args:
        timeout_seconds: deadline of a call that names none.
        wait_for_ready: wait, up to the deadline, for a server that cannot be reached, instead of failing at once.
        retries: repeat calls as the service config says; without, every refusal is seen at once.
        max_message_bytes: largest reply that is accepted.
        keepalive_seconds: while calls wait, how often the server is asked whether it is still there.
        tls: what is trusted and shown; None talks in the clear.
        credential: the API key or token that goes with every call.
        credential_file: a file whose first line it is, instead; read again when it changes.
        insecure: send the credential in the clear, even to other machines.
    """

    timeout_seconds: float = 120.0
    wait_for_ready: bool = False
    retries: bool = True
    max_message_bytes: int = 2**24
    keepalive_seconds: float = 60.0
    tls: Tls | None = None
    credential: str = field(default="", repr=False)
    credential_file: Path | None = None
    insecure: bool = False

    def open(self, target: str) -> grpc.aio.Channel:
        """A channel on the running event loop. Raises ConfigError: a file cannot be used."""
        arguments: list[tuple[str, str | int]] = [
            ("grpc.service_config", json.dumps(service_config())),
            ("grpc.enable_retries", int(self.retries)),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.keepalive_time_ms", round(self.keepalive_seconds * 1000)),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ]
        if self.tls is None:
            return grpc.aio.insecure_channel(target, options=arguments)
        if self.tls.server_name:
            arguments.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return grpc.aio.secure_channel(target, self.tls.load(), options=arguments)


def service_config() -> dict[str, Any]:
    """The retries, as gRPC reads them."""
    return {
        "methodConfig": [
            _policy(IDEMPOTENT, ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]),
            _policy(ONLY_WHEN_REFUSED, ["RESOURCE_EXHAUSTED"]),
        ],
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
    }


def _policy(methods: Mapping[str, tuple[str, ...]], codes: list[str]) -> dict[str, Any]:
    return {
        "name": [{"service": service, "method": method} for service, names in methods.items() for method in names],
        "retryPolicy": {
            "maxAttempts": 5,
            "initialBackoff": "0.1s",
            "maxBackoff": "2s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": codes,
        },
    }
