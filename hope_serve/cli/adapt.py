"""``hope-serve adapt``: teach a memory whole files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from hope_serve.api import AdaptMode, AdaptOptions, AdaptResult, Source
from hope_serve.cli.connected import Server, calls_server, connected
from hope_serve.cli.options import Timeout
from hope_serve.config import ConfigError
from hope_serve.wire.parts import parts_digest

if TYPE_CHECKING:
    from hope_serve.client import HopeClient

MARGIN_TOKENS = 2
"""Tokens that open and close a piece."""


@dataclass(frozen=True, kw_only=True)
class File:
    """A file in pieces, each small enough for one Adapt."""

    path: Path
    pieces: tuple[str, ...]


@calls_server
def adapt(
    files: Annotated[list[Path], typer.Argument(help="Text files, learned in this order.")],
    user: Annotated[str, typer.Option(help="Whose memory learns.")],
    server: Server,
    mode: Annotated[AdaptMode, typer.Option(help="What becomes of it.")] = AdaptMode.COMMIT,
    passes: Annotated[int, typer.Option(help="Times every piece is read.")] = 1,
    rate: Annotated[float, typer.Option(help="Multiplies the trained learning rates.")] = 1.0,
    again: Annotated[bool, typer.Option("--again", help="Learn what was learned before once more.")] = False,
    timeout: Timeout = 600.0,
) -> None:
    """Teach a user's memory; files that were learned before are recognised and not learned twice.

    Every file makes one version. One that is too long for an Adapt goes as a stream: interrupted, the command can be
    repeated, and a server that still knows how far it came goes on from there.
    """
    options = AdaptOptions(mode=mode, passes=passes, learning_rate_scale=rate)
    salt = uuid4().hex if again else ""
    with connected(server, timeout) as client:
        limit = client.get_model().max_adapt_tokens - MARGIN_TOKENS
        whole = [File(path=path, pieces=tuple(_pieces(path, limit))) for path in files]
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        table = Table("file", "tokens", "nll before", "nll after", "version", "", title=f"taught to {user}")
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task, behind = progress.add_task("learning", total=sum(len(file.pieces) for file in whole)), 0
            for file in whole:
                sent = _counting(file.pieces, lambda: progress.advance(task))
                result = _teach(client, user, file, sent, options, salt)
                behind += len(file.pieces)
                progress.update(task, completed=behind)
                table.add_row(*_row(file, result))
    Console().print(table)


def _counting(pieces: Iterable[str], advance: Callable[[], None]) -> Iterator[str]:
    """The pieces; each counts once the next one is asked for. The server asks for one more than it learns."""
    for piece in pieces:
        yield piece
        advance()


def _teach(
    client: HopeClient, user: str, file: File, sent: Iterator[str], options: AdaptOptions, salt: str
) -> AdaptResult:
    """The id names the content, so that an interrupted command can simply be repeated."""
    path, digest = file.path, parts_digest(file.pieces)
    source = Source(id=path.name[:256], uri=path.absolute().as_uri()[:2048], time=path.stat().st_mtime)
    content = repr((user, path.name, digest, options, salt))
    request_id = hashlib.sha256(content.encode()).hexdigest()[:40]
    if len(file.pieces) == 1:
        return client.adapt(user, next(sent), request_id=request_id, options=options, source=source)
    done = client.adapt_stream(user, sent, request_id=request_id, options=options, source=source, payload_digest=digest)
    return done.result


def _row(file: File, result: AdaptResult) -> tuple[str, ...]:
    metrics = result.metrics
    note = "known already" if result.duplicate else metrics.skip_reason or ("clipped" if metrics.clipped else "")
    losses = (f"{metrics.nll_before:.3f}", f"{metrics.nll_after:.3f}")
    return (file.path.name, str(metrics.tokens_used), *losses, str(result.version), note)


def _pieces(path: Path, limit: int) -> Iterator[str]:
    """The file in order, cut at line ends where possible. A token is at least one byte, so bytes bound tokens."""
    try:
        text = path.read_bytes().decode("utf-8-sig")  # read as text, line ends would not come out as they are
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    if not text:
        raise ConfigError(f"{path} is empty; leave it out")
    lines = (part for line in text.splitlines(keepends=True) for part in _cut(line, limit))
    held = ""
    for line in lines:
        if held and len((held + line).encode()) > limit:
            yield held
            held = ""
        held += line
    yield held


def _cut(line: str, limit: int) -> Iterator[str]:
    """A line that is too long by itself, in parts; no UTF-8 character has more than four bytes."""
    step = len(line) if len(line.encode()) <= limit else max(1, limit // 4)
    return (line[i : i + step] for i in range(0, len(line), step))
