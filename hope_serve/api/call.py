"""What calls of every kind have."""

from __future__ import annotations

from dataclasses import dataclass

MAX_REQUEST_ID = 64
MAX_PRIORITY = 100


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Seconds spent in each stage of a request."""

    queue_seconds: float = 0.0
    restore_seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
