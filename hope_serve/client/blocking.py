"""The client without asyncio: the asyncio one on an event loop of its own, in a thread."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from hope_serve.client.aio import AsyncHopeClient
from hope_serve.client.channel import ChannelOptions

P = ParamSpec("P")
R = TypeVar("R")


def _blocking(
    method: Callable[Concatenate[AsyncHopeClient, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[HopeClient, P], R]:
    @functools.wraps(method)
    def call(self: HopeClient, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._run(method(self._client, *args, **kwargs))

    return call


def _iterating(
    method: Callable[Concatenate[AsyncHopeClient, P], AsyncIterator[R]],
) -> Callable[Concatenate[HopeClient, P], Iterator[R]]:
    @functools.wraps(method)
    def call(self: HopeClient, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        events: Any = method(self._client, *args, **kwargs)
        try:
            while True:
                yield self._run(anext(events))
        except StopAsyncIteration:
            return
        finally:
            self._run(events.aclose())

    return call


class HopeClient:
    """``AsyncHopeClient``, call for call; iterators are ordinary ones. ``with`` closes it."""

    def __init__(self, target: str = "", options: ChannelOptions | None = None) -> None:
        """As ``AsyncHopeClient``."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hope-client", daemon=True)
        self._thread.start()

        async def connect() -> AsyncHopeClient:  # a channel belongs to the loop it is made on
            return AsyncHopeClient(target, options)

        try:
            self._client = self._run(connect())
        except BaseException:
            self._stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what is under way and let go."""
        self._run(self._client.close())
        self._stop()

    generate = _blocking(AsyncHopeClient.generate)
    stream = _iterating(AsyncHopeClient.stream)
    score = _blocking(AsyncHopeClient.score)
    tokenize = _blocking(AsyncHopeClient.tokenize)
    detokenize = _blocking(AsyncHopeClient.detokenize)
    get_model = _blocking(AsyncHopeClient.get_model)
    adapt = _blocking(AsyncHopeClient.adapt)
    adapt_stream = _blocking(AsyncHopeClient.adapt_stream)
    get_memory = _blocking(AsyncHopeClient.get_memory)
    list_memories = _iterating(AsyncHopeClient.list_memories)
    list_versions = _blocking(AsyncHopeClient.list_versions)
    rollback_memory = _blocking(AsyncHopeClient.rollback_memory)
    fork_memory = _blocking(AsyncHopeClient.fork_memory)
    evaluate_memory = _blocking(AsyncHopeClient.evaluate_memory)
    export_memory = _iterating(AsyncHopeClient.export_memory)
    import_memory = _blocking(AsyncHopeClient.import_memory)
    warm_memory = _blocking(AsyncHopeClient.warm_memory)
    delete_memory = _blocking(AsyncHopeClient.delete_memory)
    delete_session = _blocking(AsyncHopeClient.delete_session)
    is_serving = _blocking(AsyncHopeClient.is_serving)

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, R]) -> R:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # an interrupted caller does not leave its call running
            raise
