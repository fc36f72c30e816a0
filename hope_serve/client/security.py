"""What a client shows and trusts: its credential, the server's authority, a certificate of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc

from hope_serve.identity.watched import Watched
from hope_serve.section import ConfigError, expanded, is_loopback


@dataclass(frozen=True, kw_only=True)
class Tls:
    """PEM files.

    Args:
        roots: authorities that may vouch for the server; None: those that gRPC brings along.
        certificate, private_key: what we show to a server that asks for one (mTLS); both or neither.
        server_name: the name in the server's certificate, when it is not the target's.

    Raises:
        ConfigError: a certificate without its key, or the other way round.
    """

    roots: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            raise ConfigError("a client's certificate and its private key belong together; name both or neither")

    def load(self) -> grpc.ChannelCredentials:
        """The files' contents. Raises ConfigError."""
        return grpc.ssl_channel_credentials(_read(self.roots), _read(self.private_key), _read(self.certificate))


class Credential:
    """An API key or token, given or in a file, whose first line is read again when it changes.

    Args:
        given: the credential itself; "" for none.
        file: where it stands instead.

    Raises:
        ConfigError: both are named, or the file cannot be read.
    """

    def __init__(self, given: str, file: Path | None) -> None:
        if given and file:
            raise ConfigError(f"a credential is given, and the file {file} is named as well; choose one")
        self._value = given.strip()
        self._file = Watched(expanded(file)) if file else None

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""
        if self._file and self._file.changed():
            self._value = (_read(self._file.paths[0]) or b"").decode().partition("\n")[0].strip()
        return (("authorization", f"Bearer {self._value}"),) if self._value else ()


def check_way(target: str, *, shows_credential: bool, tls: bool, insecure: bool) -> None:
    """Refuse to send a credential in the clear to another machine.

    Raises:
        ConfigError: naming target and remedies.
    """
    if shows_credential and not (tls or insecure or _is_near(target)):
        raise ConfigError(
            f"the credential would travel to {target} in the clear; use TLS, or say insecure where something else "
            "guards the way"
        )


def _is_near(target: str) -> bool:
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    for scheme in ("dns:///", "dns:", "ipv4:", "ipv6:"):
        target = target.removeprefix(scheme)
    return is_loopback(target.rpartition(":")[0].strip("[]"))


def _read(path: Path | None) -> bytes | None:
    try:
        return expanded(path).read_bytes() if path else None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
