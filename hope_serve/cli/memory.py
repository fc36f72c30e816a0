"""``hope-serve memory``: look at memories, turn them back, erase them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from hope_serve.cli.options import Target

if TYPE_CHECKING:
    from hope_serve.client import HopeClient

TIMEOUT_SECONDS = 30.0

memory = typer.Typer(help="Look at memories, turn them back, erase them.", no_args_is_help=True)
UserId = Annotated[str, typer.Argument(metavar="USER", help="Whose memory.")]


@memory.command("ls")
def list_memories(
    target: Target = "", limit: Annotated[int, typer.Option(help="Lines to show at most.", min=1)] = 100
) -> None:
    """List memories."""
    table = Table("user", "version", "bytes", "changed (UTC)")
    with _client(target) as client:
        for line in islice(client.list_memories(page_size=min(limit, 1000)), limit):
            table.add_row(line.user, str(line.version), f"{line.num_bytes:,}", _when(line.updated_at))
    Console().print(table)


@memory.command()
def show(
    user: UserId, target: Target = "", version: Annotated[int | None, typer.Option(help="Default: the newest.")] = None
) -> None:
    """Show one version of a memory."""
    with _client(target) as client:
        report = client.get_memory(user, version=version)
    table = Table(show_header=False)
    table.add_row("version", str(report.version))
    table.add_row("changed (UTC)", _when(report.updated_at))
    table.add_row("bytes", f"{report.num_bytes:,}")
    table.add_row("tokens learned", f"{report.tokens_learned:,}")
    for level in report.levels:
        table.add_row(f"level {level.level}", f"{level.updates} updates, drift {level.drift:.4f}")
    table.add_row("digest", report.state_digest)
    table.add_row("learned from", "\n".join(source.id or source.uri for source in report.sources))
    Console().print(table)


@memory.command()
def versions(user: UserId, target: Target = "") -> None:
    """List the versions of a memory."""
    table = Table("version", "from", "by", "when (UTC)", "request", "source", "can return")
    with _client(target) as client:
        for line in client.list_versions(user):
            table.add_row(
                str(line.version),
                str(line.base_version),
                line.kind,
                _when(line.created_at),
                line.request_id,
                line.source.id,
                "yes" if line.restorable else "no",
            )
    Console().print(table)


@memory.command()
def rollback(
    user: UserId,
    version: Annotated[int, typer.Argument(help="The version whose content returns.")],
    target: Target = "",
) -> None:
    """Bring an older version's content back as the newest version."""
    with _client(target) as client:
        made = client.rollback_memory(user, version)
    typer.echo(f"version {made} of {user} has the content of version {version}")


@memory.command()
def rm(
    user: UserId,
    target: Target = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase a memory and every session of its user, for good."""
    if not yes:
        typer.confirm(f"Erase the memory of {user} for good?", abort=True)
    with _client(target) as client:
        receipt = client.delete_memory(user)
    typer.echo(
        f"erased {receipt.versions_removed} versions and {receipt.sessions_removed} sessions of {user} "
        f"at {_when(receipt.erased_at)} UTC; receipt {receipt.receipt_id}"
    )


@contextmanager
def _client(target: str) -> Iterator[HopeClient]:
    from hope_serve.client import HopeClient
    from hope_serve.client.channel import ChannelOptions

    with HopeClient(target, ChannelOptions(timeout_seconds=TIMEOUT_SECONDS)) as client:
        yield client


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
