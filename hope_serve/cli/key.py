"""``hope-serve key new|list|revoke``: the API keys that a server takes, in a file that servers follow."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from hope_serve.cli.memories import when
from hope_serve.errors import InvalidRequest
from hope_serve.identity import Scope
from hope_serve.identity.api_keys import NewKey, load_keys, new_key, revoke_key
from hope_serve.identity.limits import NO_LIMITS, Limits

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
    limit: Annotated[
        list[str] | None, typer.Option(help="name=value, such as slots=4 or max_tokens=512. May be repeated.")
    ] = None,
    note: Annotated[str, typer.Option(help="For people who read the list.")] = "",
) -> None:
    """Make a key and print it, this once: the file keeps only its digest."""
    expires_at = time.time() + days * DAY_SECONDS if days else 0.0
    limits = _limits(limit or [])
    try:
        asked = NewKey(tenant=tenant, scopes=tuple(scope), user=user, note=note, expires_at=expires_at, limits=limits)
    except ValueError as error:
        raise InvalidRequest("--tenant", str(error)) from error
    typer.echo(new_key(file, asked)[1])


def _set(limits: Limits) -> list[tuple[str, float]]:
    return [
        (name, value) for name, value in msgspec.structs.asdict(limits).items() if value != getattr(NO_LIMITS, name)
    ]


def _limits(given: list[str]) -> Limits:
    pairs = {name.strip(): value for name, _, value in (text.partition("=") for text in given)}
    try:
        return msgspec.convert(pairs, Limits, strict=False)
    except msgspec.ValidationError as error:
        names = ", ".join(Limits.__struct_fields__)
        raise InvalidRequest("--limit", f"{error}; write name=value with one of {names}") from error


@key.command("list")
def list_keys(file: KeyFile) -> None:
    """List the keys, none of which can be read from the file."""
    table = Table("id", "tenant", "user", "scopes", "limits", "made (UTC)", "expires (UTC)", "note")
    for line in load_keys(file):
        scopes = " ".join(scope.value for scope in line.scopes)
        expires = when(line.expires_at) if line.expires_at else "never"
        limits = " ".join(f"{name}={value:g}" for name, value in _set(line.limits))
        made = when(line.created_at)
        table.add_row(line.id, line.tenant, line.user or "any", scopes, limits, made, expires, line.note)
    Console().print(table)


@key.command("revoke")
def revoke(file: KeyFile, name: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")]) -> None:
    """Revoke a key; servers refuse it once they have read the file again, within identity.reload_seconds."""
    gone = revoke_key(file, name)
    typer.echo(f"key {gone.id} of tenant {gone.tenant} is revoked")
