"""``hope-serve memory fork|export|import|warm``: memories copied, sent away, taken in, brought near."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from hope_serve.cli.connected import Server, calls_server, connected
from hope_serve.cli.options import PassphraseFile, UserId, Version
from hope_serve.config import ConfigError

PIECE_BYTES = 2**16
MAX_PASSPHRASE_BYTES = 4096
TIMEOUT_SECONDS = 600.0


@calls_server
def fork(
    user: UserId,
    to: Annotated[str, typer.Argument(metavar="TARGET", help="Who gets the copy; must not have a memory.")],
    server: Server,
    version: Version = None,
) -> None:
    """Give a user who has no memory a copy of another user's."""
    with connected(server) as client:
        made = client.fork_memory(user, to, version=version)
    typer.echo(f"version {made} of {to} has the content of the memory of {user}")


@calls_server
def export_file(
    user: UserId,
    file: Annotated[Path, typer.Argument(help="Is written; must not be there yet.")],
    server: Server,
    version: Version = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Write a memory to a sealed file; without a passphrase anybody can read it, and seals only show damage."""
    passphrase = _passphrase(passphrase_file, confirm=True)
    if file.exists():
        raise ConfigError(f"{file} is there already; remove it, or choose another name")
    part = file.with_name(f"{file.name}.part")
    try:
        with connected(server, TIMEOUT_SECONDS) as client, part.open("xb") as written:
            part.chmod(0o600)
            for piece in client.export_memory(user, version=version, passphrase=passphrase):
                written.write(piece)
            written.flush()
            os.fsync(written.fileno())
        part.rename(file)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    lock = "its passphrase opens it" if passphrase else "anybody can read it"
    typer.echo(f"{file}: the memory of {user}, {file.stat().st_size:,} bytes; {lock}")


@calls_server
def import_file(
    user: UserId,
    file: Annotated[Path, typer.Argument(help="What `export` wrote.")],
    server: Server,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Give a user who has no memory the one in a file."""
    passphrase = _passphrase(passphrase_file, confirm=False)
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    with connected(server, TIMEOUT_SECONDS) as client:
        version = client.import_memory(user, _pieces(file), passphrase=passphrase)
    typer.echo(f"version {version} of {user} has the content of {file}")


@calls_server
def warm(user: UserId, server: Server) -> None:
    """Bring a memory out of the store ahead of the calls that will read it."""
    with connected(server) as client:
        warmed = client.warm_memory(user)
    if not warmed.version:
        typer.echo(f"{user} has no memory")
    else:
        typer.echo(f"version {warmed.version} of {user} {'was' if warmed.was_warm else 'is now'} at hand")


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as read:
        while piece := read.read(PIECE_BYTES):
            yield piece


def _passphrase(file: Path | None, *, confirm: bool) -> str | None:
    """The first line of a file; ``-`` asks on the terminal."""
    if file is None:
        return None
    if str(file) == "-":
        return str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm))
    try:
        with file.open("rb") as read:
            return read.readline(MAX_PASSPHRASE_BYTES).decode("utf-8-sig").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"the passphrase file {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the passphrase file {file} is not UTF-8 text") from error
