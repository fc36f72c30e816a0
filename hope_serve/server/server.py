"""The gRPC server: services, what surrounds them, and how they come and go."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc

from hope_serve.config import ConfigError, ServerConfig
from hope_serve.memory.store import MemoryStore
from hope_serve.metrics import Metrics
from hope_serve.pb.hope.v1 import adaptation_pb2, inference_pb2, memory_pb2
from hope_serve.pb.hope.v1.adaptation_pb2_grpc import add_AdaptationServiceServicer_to_server
from hope_serve.pb.hope.v1.inference_pb2_grpc import add_InferenceServiceServicer_to_server
from hope_serve.pb.hope.v1.memory_pb2_grpc import add_MemoryServiceServicer_to_server
from hope_serve.server.adaptation import AdaptationService
from hope_serve.server.admission import Admission
from hope_serve.server.door import Door
from hope_serve.server.guard import Guard
from hope_serve.server.health import Health
from hope_serve.server.inference import InferenceService
from hope_serve.server.interceptor import CallInterceptor
from hope_serve.server.learner import Learner
from hope_serve.server.listening import free_endpoints
from hope_serve.server.memory import MemoryService
from hope_serve.server.prompts import Prompts
from hope_serve.server.reflection import enable_reflection
from hope_serve.server.tracing import Tracing
from hope_serve.server.workers import Workers
from hope_serve.tokenizer import Vocabulary

if TYPE_CHECKING:
    from hope_serve.service import Service

SERVICES = tuple(
    service.full_name
    for module in (inference_pb2, adaptation_pb2, memory_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
)

MAX_MESSAGES_UNDER_WAY = 8
"""Messages of the largest size that may be under way; of smaller ones accordingly more."""
CLOSE_SECONDS = 0.5
"""For what is still open after the drain: watchers of our health, and calls that overran it."""


class HopeServer:
    """Everything between the port and the engine. The engine, the store and their order of closing are the caller's."""

    def __init__(
        self,
        config: ServerConfig,
        service: Service,
        tokenizer: Vocabulary,
        metrics: Metrics,
        guard: Guard,
        tracing: Tracing,
    ) -> None:
        self._config = config
        self._guard = guard
        self._service = service
        self._pulse: asyncio.Task[None] | None = None
        self._admission = Admission(config.max_concurrent_calls, MAX_MESSAGES_UNDER_WAY * config.max_message_bytes)
        self._learner = Learner(service, guard.allowances, limit=config.max_background_learning)
        self._workers = Workers()
        door = Door(guard.authenticator, service.memories.store.record_read if guard.records_reads else None)
        interceptor = CallInterceptor(
            door,
            self._admission,
            metrics,
            self._workers,
            tracing,
            write_timeout_seconds=config.write_timeout_seconds,
        )
        self._server = grpc.aio.server(interceptors=(interceptor,), options=_options(config))
        prompts, workers = Prompts(tokenizer, service.info), self._workers
        service = guard.rationed(service)
        add_InferenceServiceServicer_to_server(InferenceService(service, prompts, self._learner, workers), self._server)
        add_AdaptationServiceServicer_to_server(AdaptationService(service, prompts, workers), self._server)
        add_MemoryServiceServicer_to_server(MemoryService(service, prompts, workers), self._server)
        self._health = Health(service, self._admission, SERVICES, liveness_seconds=config.liveness_seconds)
        self._health.join(self._server)
        if guard.open if config.reflection is None else config.reflection:
            enable_reflection((*SERVICES, "grpc.health.v1.Health"), self._server)

    async def start(self, store: MemoryStore) -> int:
        """Listen, and return the port.

        Raises:
            ConfigError: the address cannot be had, or only a part of what its name stands for.
        """
        port = await self._bind()
        await self._health.refresh()
        await self._server.start()
        self._pulse = asyncio.get_running_loop().create_task(self._health.pulse(store), name="health")
        return port

    @property
    def learning_share(self) -> float:
        """Exchanges that wait to be learned, as a share of how many may."""
        return self._learner.share

    async def _bind(self) -> int:
        endpoints = await free_endpoints(self._config.listen, "server.listen")
        try:
            return max([self._guard.add_port(self._server, str(endpoint)) for endpoint in endpoints])
        except RuntimeError as error:  # taken between our look and now
            raise ConfigError(
                f"server.listen {self._config.listen} cannot be bound; stop what listens there or choose another port"
            ) from error

    async def refresh_health(self) -> None:
        """Make the answers to health checks true now."""
        await self._health.refresh()

    async def drain(self) -> None:
        """Take no new calls (health goes on answering), finish those under way, learn what they asked to learn."""
        self._admission.close()
        await self._health.refresh()
        await self._admission.drain()
        await self._learner.drain()

    async def linger(self) -> None:
        """Stay until proxies have noticed: a call that met a closing port could not tell whether it was begun."""
        await self._admission.quiet(self._config.linger_seconds)

    async def close(self) -> None:
        """Stop listening and let go of whatever is still under way."""
        if self._pulse:
            self._pulse.cancel()
        self._learner.cancel()
        await self._server.stop(CLOSE_SECONDS)
        self._workers.close()


def _options(config: ServerConfig) -> list[tuple[str, int]]:
    keepalive = round(config.keepalive_seconds * 1000)
    return [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.so_reuseport", 0),  # a second server on the port is a mistake, not a twin
        ("grpc.keepalive_time_ms", keepalive),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # A client that asks too often whether we are there is answered; hanging up would cost its calls and our time.
        ("grpc.http2.max_ping_strikes", 0),
    ]
