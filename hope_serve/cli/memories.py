"""``hope-serve memory ls|show|versions|rollback|rm``: what a server's memories are, and the way back."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from hope_serve.cli.connected import Server, calls_server, connected
from hope_serve.cli.options import UserId


@calls_server
def list_memories(
    server: Server, limit: Annotated[int, typer.Option(help="Lines to show at most.", min=1)] = 100
) -> None:
    """List memories."""
    table = Table("user", "version", "bytes", "changed (UTC)")
    with connected(server) as client:
        for line in islice(client.list_memories(page_size=min(limit, 1000)), limit):
            table.add_row(line.user, str(line.version), f"{line.num_bytes:,}", when(line.updated_at))
    Console().print(table)


@calls_server
def show(
    user: UserId, server: Server, version: Annotated[int | None, typer.Option(help="Default: the newest.")] = None
) -> None:
    """Show one version of a memory."""
    with connected(server) as client:
        report = client.get_memory(user, version=version)
    table = Table(show_header=False)
    table.add_row("version", str(report.version))
    table.add_row("changed (UTC)", when(report.updated_at))
    table.add_row("bytes", f"{report.num_bytes:,}")
    table.add_row("tokens learned", f"{report.tokens_learned:,}")
    for level in report.levels:
        table.add_row(f"level {level.level}", f"{level.updates} updates, drift {level.drift:.4f}")
    table.add_row("digest", report.state_digest)
    table.add_row("learned from", "\n".join(source.id or source.uri for source in report.sources))
    Console().print(table)


@calls_server
def versions(user: UserId, server: Server) -> None:
    """List the versions of a memory."""
    table = Table("version", "from", "by", "when (UTC)", "request", "source", "can return")
    with connected(server) as client:
        for line in client.list_versions(user):
            table.add_row(
                str(line.version),
                str(line.base_version),
                line.kind,
                when(line.created_at),
                line.request_id,
                line.source.id,
                "yes" if line.restorable else "no",
            )
    Console().print(table)


@calls_server
def rollback(
    user: UserId,
    version: Annotated[int, typer.Argument(help="The version whose content returns.")],
    server: Server,
) -> None:
    """Bring an older version's content back as the newest version."""
    with connected(server) as client:
        made = client.rollback_memory(user, version)
    typer.echo(f"version {made} of {user} has the content of version {version}")


@calls_server
def rm(
    user: UserId,
    server: Server,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase a memory and every session of its user, for good."""
    if not yes:
        typer.confirm(f"Erase the memory of {user} for good?", abort=True)
    with connected(server) as client:
        receipt = client.delete_memory(user)
    typer.echo(
        f"erased {receipt.versions_removed} versions and {receipt.sessions_removed} sessions of {user} "
        f"at {when(receipt.erased_at)} UTC; receipt {receipt.receipt_id}"
    )


def when(seconds: float) -> str:
    """A moment as people read it, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
