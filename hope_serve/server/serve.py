"""The composition root: from a configuration to a running server, and back down without losing anything."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import platform
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import torch
import uvloop

import hope_serve
from hope_serve.config import Config, ConfigError, memory_key_secret
from hope_serve.engine import native_codec
from hope_serve.memory.url_parts import split_url
from hope_serve.metrics import Metrics
from hope_serve.metrics_server import MetricsServer
from hope_serve.model.serving.model import Loaded
from hope_serve.server.devices import chosen_device
from hope_serve.server.engines import made_engine
from hope_serve.server.guard import Guard
from hope_serve.server.listening import free_endpoints
from hope_serve.server.loading import opened_model
from hope_serve.server.logs import configure_logs
from hope_serve.server.measured_store import measured
from hope_serve.server.promises import promises_watched
from hope_serve.server.saturation import saturation
from hope_serve.server.server import HopeServer
from hope_serve.server.stores import opened_store
from hope_serve.server.tracing import Tracing, opened_tracing
from hope_serve.server.upkeep import upkeep_job
from hope_serve.service import Service

log = logging.getLogger(__name__)

QUICK_EXIT_CODE = 130
FAILURE_EXIT_CODE = 70
M_ARENA_MAX = -8
"""mallopt's name for the number of heaps."""
SWITCH_SECONDS = 1e-4
"""How long a thread that wants the interpreter waits before it is given it.

The engine's thread lets go of it with every operation on tensors, some ten times a step, and the event loop, busy for
as long as streams are read, takes it; by the interpreter's own 5 ms a step that takes 3 on the device takes 10."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server that takes calls."""

    server: HopeServer
    service: Service
    port: int
    metrics_port: int

    async def drain(self, seconds: float) -> bool:
        """Finish what is under way, for at most ``seconds``; whether all of it was finished."""
        finished = False
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.server.drain()
                finished = True
                await self.server.linger()
        if not finished:
            log.warning("after drain_seconds %g some calls had not ended; they are cut off", seconds)
            return False
        await self.service.drain(0)
        return True


def run(config: Config, announce: Callable[[Running], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends the process at once, with exit code 130.

    A process whose engine has failed ends by itself, with exit code 70, within two seconds.

    Raises:
        ConfigError, CheckpointError, HopeError: it cannot start; the message names the remedy.
    """
    _share_heaps()
    sys.setswitchinterval(SWITCH_SECONDS)
    configure_logs(config.server)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(config, announce))


def _share_heaps() -> None:
    """Let threads share two heaps where glibc would give each its own, which keeps for itself what was freed in it."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").mallopt(M_ARENA_MAX, 2)


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[Running]:
    """A server, from checkpoint to ports; leaving closes everything, in the opposite order."""
    guard = await asyncio.to_thread(Guard.load, config)
    device = chosen_device(config.model.device)
    model = await asyncio.to_thread(opened_model, config.model)
    checkpoint = model.loaded
    metrics = Metrics(build=_build_labels(), model=_model_labels(checkpoint, config, device))
    async with AsyncExitStack() as closing:
        sealed = await closing.enter_async_context(opened_store(config.memory, secret=memory_key_secret()))
        tracing = await closing.enter_async_context(_tracing(config, checkpoint))
        store = measured(sealed, metrics, tracing)
        tokenizer = checkpoint.tokenizer()
        engine = made_engine(model, config, metrics, device=device)
        codec = native_codec(checkpoint, config.engine, device=device)
        service = Service(engine, codec, tokenizer, store, config.engine, metrics)
        closing.push_async_callback(service.close)
        await service.start()
        metrics_server = await _metrics_server(config.server.metrics_listen, metrics, guard)
        closing.push_async_callback(asyncio.to_thread, metrics_server.close)
        server = HopeServer(config.server, service, tokenizer, metrics, guard, tracing)
        metrics.saturation().set_function(lambda: saturation(metrics, config.engine, lessons=server.learning_share))
        closing.push_async_callback(server.close)
        port = await server.start(store)
        await closing.enter_async_context(upkeep_job(sealed.upkeep, config.memory))
        await closing.enter_async_context(promises_watched(sealed, metrics, config.memory.check_seconds))
        await closing.enter_async_context(guard.following(config.identity.reload_seconds))
        # What is here now stays: a collection that looked through all of it would hold everybody up for half a second.
        gc.freeze()
        closing.callback(gc.unfreeze)
        yield Running(server=server, service=service, port=port, metrics_port=metrics_server.port)


async def _serve(config: Config, announce: Callable[[Running], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(QUICK_EXIT_CODE)  # commits are atomic: nothing that was acknowledged is lost
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    async with running(config) as server:
        announce(server)
        watching = loop.create_task(_end_with(server), name="watch")
        await stop.wait()
        log.info("draining for at most %g s; a second signal ends at once", config.server.drain_seconds)
        await server.drain(config.server.drain_seconds)
        watching.cancel()


async def _end_with(server: Running) -> None:
    """End the process when the engine has failed: a new one can serve, this one cannot."""
    await server.service.ended()
    log.critical("the engine has failed; the process ends with exit code %d", FAILURE_EXIT_CODE)
    await server.server.close()  # calls under way are told, and health checks fail
    # Not in order: a lost device may never let go of its memory. Commits are atomic, so nothing acknowledged is lost.
    os._exit(FAILURE_EXIT_CODE)


def _tracing(config: Config, checkpoint: Loaded) -> AbstractAsyncContextManager[Tracing]:
    place = split_url(config.memory.url).place
    return opened_tracing(config.tracing, release=hope_serve.__version__, model=checkpoint.config.name, store=place)


async def _metrics_server(listen: str, metrics: Metrics, guard: Guard) -> MetricsServer:
    endpoint = (await free_endpoints(listen, "server.metrics_listen"))[0]
    try:
        return MetricsServer(metrics.registry, endpoint.host, endpoint.port, guard.metrics_tls)
    except OSError as error:
        raise ConfigError(
            f"server.metrics_listen {listen} cannot be bound ({error.strerror}); choose another port, or port 0"
        ) from error


def _build_labels() -> dict[str, str]:
    return {"version": hope_serve.__version__, "python": platform.python_version(), "torch": torch.__version__}


def _model_labels(checkpoint: Loaded, config: Config, device: str) -> dict[str, str]:
    return {
        "name": checkpoint.config.name,
        "fingerprint": checkpoint.fingerprint,
        "device": device,
        "deterministic": str(config.engine.deterministic).lower(),
    }
