"""How a command reaches its server: the options for it, and a client made of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hope_serve.client import ChannelOptions, HopeClient

TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where it is, what is shown to it, and what is trusted. The fields are options of every command that calls."""

    target: Annotated[
        str, typer.Option("--target", help="The server, host:port. Default: HOPE_TARGET or 127.0.0.1:50051.")
    ] = ""
    credentials: Annotated[
        Path | None,
        typer.Option("--credentials", envvar="HOPE_CREDENTIALS", help="File with your API key or token."),
    ] = None
    tls: Annotated[bool, typer.Option("--tls", help="Use TLS; follows from the options below.")] = False
    tls_roots: Annotated[
        Path | None,
        typer.Option("--tls-roots", envvar="HOPE_TLS_ROOTS", help="PEM of who may vouch for the server."),
    ] = None
    tls_certificate: Annotated[
        Path | None,
        typer.Option("--tls-certificate", envvar="HOPE_TLS_CERTIFICATE", help="PEM to show to a server that asks."),
    ] = None
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", envvar="HOPE_TLS_KEY", help="PEM of that certificate's key.")
    ] = None
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Send the credential in the clear, even to another machine.")
    ] = False

    def options(self, timeout_seconds: float) -> ChannelOptions:
        """For a client; grpc is loaded only now. Raises ConfigError."""
        from hope_serve.client import ChannelOptions, Tls

        tls = None
        if self.tls or self.tls_roots or self.tls_certificate or self.tls_key:
            tls = Tls(roots=self.tls_roots, certificate=self.tls_certificate, private_key=self.tls_key)
        return ChannelOptions(
            timeout_seconds=timeout_seconds, tls=tls, credential_file=self.credentials, insecure=self.insecure
        )


def calls_server(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, in place of its parameter ``server``, the options that make one."""
    return takes("server", Server)(command)


def takes(name: str, kind: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command, in place of its parameter ``name``, the options that are the fields of the dataclass ``kind``."""

    def with_options(command: Callable[..., None]) -> Callable[..., None]:
        taken = inspect.signature(command, eval_str=True)
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in taken.parameters.values()
            if parameter.name != name
        ]
        options = list(inspect.signature(kind, eval_str=True).parameters.values())

        @functools.wraps(command)
        def called(**given: Any) -> None:
            made = kind(**{option.name: given.pop(option.name) for option in options})
            command(**{name: made}, **given)

        described: Any = called
        described.__signature__ = taken.replace(parameters=[*own, *options])
        described.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *options)}
        return called

    return with_options


@contextmanager
def connected(server: Server, timeout_seconds: float = TIMEOUT_SECONDS) -> Iterator[HopeClient]:
    """A client of the server."""
    from hope_serve.client import HopeClient

    with HopeClient(server.target, server.options(timeout_seconds)) as client:
        yield client
