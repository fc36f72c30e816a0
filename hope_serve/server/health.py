"""grpc.health.v1: "" is alive (the engine came round lately), a service's name is ready (it takes new calls).

An engine that has failed is not alive from the next pulse on, and its process ends by itself (see ``serve``). One that
does not come round may only be slow: it is not alive after ``server.liveness_seconds``, and whoever probes decides what
follows; it is alive again when the step ends. After ``engine.stuck_seconds`` it is given up, which is a failure.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_health.v1.health import aio  # type: ignore[import-untyped]

from hope_serve.errors import HopeError
from hope_serve.memory.store import MemoryStore
from hope_serve.server.admission import Admission

if TYPE_CHECKING:
    from hope_serve.service import Service

ALIVE = ""
PULSE_SECONDS = 0.5
PINGS_EVERY = 10
"""Pulses between two looks at the store."""


class Health:
    """Keeps the health service's answers true while the server runs."""

    def __init__(
        self, service: Service, admission: Admission, services: Sequence[str], *, liveness_seconds: float
    ) -> None:
        self._service = service
        self._admission = admission
        self._services = services
        self._limit = liveness_seconds
        self._servicer = aio.HealthServicer()

    def join(self, server: grpc.aio.Server) -> None:
        """Serve the answers."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def pulse(self, store: MemoryStore) -> None:
        """Look again and again, at the store more rarely: its metric is all that a ping is for."""
        for beat in itertools.count():
            await self.refresh()
            if beat % PINGS_EVERY == 0:
                with suppress(HopeError):
                    await store.ping()
            await asyncio.sleep(PULSE_SECONDS)

    async def refresh(self) -> None:
        """Make the answers true now."""
        alive = self._service.failure is None and self._service.seconds_since_step() <= self._limit
        ready = alive and self._service.ready and not self._admission.draining
        await self._servicer.set(ALIVE, _status(alive))
        for service in self._services:
            await self._servicer.set(service, _status(ready))


def _status(good: bool) -> int:
    status: int = health_pb2.HealthCheckResponse.SERVING if good else health_pb2.HealthCheckResponse.NOT_SERVING
    return status
