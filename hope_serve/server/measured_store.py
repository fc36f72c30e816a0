"""A store whose every operation is timed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

from hope_serve.errors import CorruptMemory, HopeError, Unavailable
from hope_serve.memory.store import MemoryStore
from hope_serve.metrics import STORE_OPS, Metrics
from hope_serve.server.tracing import Tracing


def measured(store: MemoryStore, metrics: Metrics, tracing: Tracing) -> MemoryStore:
    """``store``, measured: hope_store_op_seconds and hope_store_up, and a span for what a call asks of it."""
    return cast(MemoryStore, _Measured(store, metrics, tracing))


class _Measured:
    def __init__(self, store: MemoryStore, metrics: Metrics, tracing: Tracing) -> None:
        self._store = store
        self._tracing = tracing
        self._metrics = metrics

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return self._timed(name, found) if name in STORE_OPS else found

    def _timed(self, op: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = "ok"
            try:
                with self._tracing.storing(op):
                    return await call(*args, **kwargs)
            except HopeError as error:
                result = _name_of(error)
                raise
            except asyncio.CancelledError:
                result = "cancelled"
                raise
            finally:
                self._metrics.store_op_seconds(op=op, result=result).observe(time.perf_counter() - start)
                if result != "cancelled":
                    self._metrics.store_up().set(result != "unavailable")

        return timed


def _name_of(error: HopeError) -> str:
    match error:
        case Unavailable():
            return "unavailable"
        case CorruptMemory():
            return "corrupt"
        case _:
            return "refused"
