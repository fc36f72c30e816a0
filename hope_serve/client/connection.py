"""A connection to one server: its deadlines, and its refusals as ``HopeError``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self, TypedDict, TypeVar

import grpc
from google.protobuf.message import Message as Pb

from hope_serve.client.affinity import affinity_of
from hope_serve.client.channel import ChannelOptions
from hope_serve.client.security import Credential, check_way
from hope_serve.client.spans import client_span
from hope_serve.config import default_target
from hope_serve.errors import InvalidRequest, Unavailable
from hope_serve.wire.status import UNREACHABLE, read_status

R = TypeVar("R", bound=Pb)
T = TypeVar("T")


class CallFields(TypedDict, total=False):
    """Of any call: its own deadline, in seconds from now."""

    timeout_seconds: float


class Connection:
    """A channel, and what every call over it does alike."""

    def __init__(self, target: str = "", options: ChannelOptions | None = None) -> None:
        """``target``: host:port; empty is HOPE_TARGET or 127.0.0.1:50051."""
        self._options = options or ChannelOptions()
        self.target = target or default_target()
        self._credential = Credential(self._options.credential, self._options.credential_file)
        check_way(
            self.target,
            shows_credential=bool(self._credential.metadata()),
            tls=self._options.tls is not None,
            insecure=self._options.insecure,
        )
        self._channel = self._options.open(self.target)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel what is under way and let go."""
        await self._channel.close()

    async def _call(self, rpc: Callable[..., Awaitable[R]], request: Pb, fields: CallFields, name: str = "") -> R:
        with self._sending(request, fields, name) as sent_with:
            return await rpc(request, **sent_with)

    @contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            meant = read_status(error.code(), error.details() or "", error.trailing_metadata() or ())
            if meant.reason == UNREACHABLE:
                meant = Unavailable(f"no server answers at {self.target}: {error.details()}", reason=UNREACHABLE)
            raise meant from error

    @contextmanager
    def _sending(self, request: Pb, fields: CallFields, rpc: str = "") -> Iterator[dict[str, Any]]:
        """A call: yields what gRPC is told about it; errors are ours.

        Args:
            request: what it says of the user, which is its message or a part of its first one.
            fields: its own deadline.
            rpc: its name in the contract; "" reads it off the request's.
        """
        name = rpc or type(request).__name__.removesuffix("Request")
        with client_span(name) as trace, self._typed_errors():
            yield {
                "timeout": fields.get("timeout_seconds", self._options.timeout_seconds),
                "wait_for_ready": self._options.wait_for_ready,
                "metadata": affinity_of(request) + trace + self._credential.metadata(),
            }


def encoded(write: Callable[[], T]) -> T:
    """The message, or what else of one, that ``write`` makes. Raises InvalidRequest for what does not fit the wire."""
    try:
        return write()
    except (TypeError, ValueError) as error:  # protobuf's own: a value that does not fit its field's type
        raise InvalidRequest("request", f"{error}; see the field's type in proto/hope/v1") from error
