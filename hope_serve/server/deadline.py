"""A call's deadline, on the clock that the engine reads."""

from __future__ import annotations

import math
import time
from typing import Any

import grpc


def deadline_of(context: grpc.aio.ServicerContext[Any, Any]) -> float:
    """Seconds on ``time.monotonic``; infinite when the client set none."""
    remaining: float | None = context.time_remaining()
    return math.inf if remaining is None else time.monotonic() + remaining
