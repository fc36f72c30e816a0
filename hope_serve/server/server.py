"""The gRPC server: services, what surrounds them, and how they come and go."""

from __future__ import annotations

import asyncio
from functools import partial
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
        self._admission = Admission(
            config.max_concurrent_calls, MAX_MESSAGES_UNDER_WAY * config.max_message_bytes, shared=not guard.open
        )
        self._learner = Learner(service, guard.allowances, limit=config.max_background_learning)
        self._workers = Workers()
        self._health = Health(service, self._admission, SERVICES, liveness_seconds=config.liveness_seconds)
        record = service.memories.store.record_read if guard.records_reads else None

        def face(*, takes_admin: bool) -> grpc.aio.Server:
            door = Door(guard.authenticator, record, takes_admin=takes_admin)
            timeout = config.write_timeout_seconds
            around = CallInterceptor(
                door, self._admission, metrics, self._workers, tracing, write_timeout_seconds=timeout
            )
            return grpc.aio.server(interceptors=(around,), options=_options(config))

        self._faces = {"listen": face(takes_admin=not config.admin_listen)}
        if config.admin_listen:
            self._faces["admin_listen"] = face(takes_admin=True)
        for server in self._faces.values():
            self._serve_all(server, tokenizer)
        if config.health_listen:
            self._faces["health_listen"] = grpc.aio.server(options=_options(config))
        for server in self._faces.values():
            self._health.join(server)
        self.ports: dict[str, int] = {}

    def _serve_all(self, server: grpc.aio.Server, tokenizer: Vocabulary) -> None:
        """Every RPC."""
        prompts, workers = Prompts(tokenizer, self._service.info), self._workers
        service = self._guard.rationed(self._service)
        add_InferenceServiceServicer_to_server(InferenceService(service, prompts, self._learner, workers), server)
        add_AdaptationServiceServicer_to_server(AdaptationService(service, prompts, workers), server)
        add_MemoryServiceServicer_to_server(MemoryService(service, prompts, workers), server)
        if self._guard.open if self._config.reflection is None else self._config.reflection:
            enable_reflection((*SERVICES, "grpc.health.v1.Health"), server)

    async def start(self, store: MemoryStore) -> int:
        """Listen, and return the port of ``server.listen``; ``ports`` has those of every address, by its key.

        Raises:
            ConfigError: an address cannot be had, or only a part of what its name stands for.
        """
        for key, server in self._faces.items():
            self.ports[key] = await self._bind(key, server)
        await self._health.refresh()
        for server in self._faces.values():
            await server.start()
        self._pulse = asyncio.get_running_loop().create_task(self._health.pulse(store), name="health")
        return self.ports["listen"]

    @property
    def learning_share(self) -> float:
        """Exchanges that wait to be learned, as a share of how many may."""
        return self._learner.share

    async def _bind(self, key: str, server: grpc.aio.Server) -> int:
        listen = getattr(self._config, key)
        endpoints = await free_endpoints(listen, f"server.{key}")
        add = server.add_insecure_port if key == "health_listen" else partial(self._guard.add_port, server)
        try:
            return max([add(str(endpoint)) for endpoint in endpoints])
        except RuntimeError as error:  # taken between our look and now
            raise ConfigError(
                f"server.{key} {listen} cannot be bound; stop what listens there or choose another port"
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
        await asyncio.gather(*(server.stop(CLOSE_SECONDS) for server in self._faces.values()))
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
