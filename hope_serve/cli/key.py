"""``hope-serve key new|list|revoke``: the API keys that a server takes, in a file that servers follow."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from hope_serve.cli.memories import when
from hope_serve.config import ConfigError
from hope_serve.errors import InvalidRequest
from hope_serve.identity import Scope
from hope_serve.identity.api_keys import load_keys, new_key, revoke_key

DAY_SECONDS = 86_400.0

KeyFile = Annotated[Path, typer.Argument(metavar="FILE", help="The server's identity.key_file.")]

key = typer.Typer(help="Make, list and revoke the API keys of a server.", no_args_is_help=True)


@key.command("new")
def new(
    file: KeyFile,
    tenant: Annotated[str, typer.Option(help="Whose memories it opens.")],
    scope: Annotated[list[Scope], typer.Option(help="What it may. May be repeated.")],
    user: Annotated[str, typer.Option(help="The only user it may name. Default: any of the tenant.")] = "",
    days: Annotated[float, typer.Option(help="Until it expires. Default: never.", min=0.0, max=36_500.0)] = 0.0,
    note: Annotated[str, typer.Option(help="For people who read the list.")] = "",
) -> None:
    """Make a key and print it, this once: the file keeps only its digest."""
    expires_at = time.time() + days * DAY_SECONDS if days else 0.0
    try:
        _, shown = new_key(file, tenant=tenant, scopes=tuple(scope), user=user, note=note, expires_at=expires_at)
    except ConfigError:
        raise
    except ValueError as error:
        raise InvalidRequest("--tenant", str(error)) from error
    typer.echo(shown)


@key.command("list")
def list_keys(file: KeyFile) -> None:
    """List the keys, none of which can be read from the file."""
    table = Table("id", "tenant", "user", "scopes", "made (UTC)", "expires (UTC)", "note")
    for line in load_keys(file):
        scopes = " ".join(scope.value for scope in line.scopes)
        expires = when(line.expires_at) if line.expires_at else "never"
        table.add_row(line.id, line.tenant, line.user or "any", scopes, when(line.created_at), expires, line.note)
    Console().print(table)


@key.command("revoke")
def revoke(file: KeyFile, name: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")]) -> None:
    """Revoke a key; servers refuse it once they have read the file again, within identity.reload_seconds."""
    gone = revoke_key(file, name)
    typer.echo(f"key {gone.id} of tenant {gone.tenant} is revoked")
