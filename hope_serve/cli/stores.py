"""``hope-serve memory install-functions|move|rotate-keys|upkeep|audit``: jobs on a store, with no server between.

They read the server's configuration for the store's address, keys and limits, and may run while servers run, but for
``move``: nobody may write to the store that is moved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from hope_serve.api import Owner
from hope_serve.cli.memories import when
from hope_serve.cli.options import ConfigFile, StoreUrl
from hope_serve.config import Config, ConfigError, MemoryConfig, expanded, load_config, memory_key_secret
from hope_serve.identity.caller import DEFAULT_TENANT

if TYPE_CHECKING:
    from hope_serve.memory.audit import AuditEvent
    from hope_serve.memory.sealed_store import SealedStore
    from hope_serve.memory.upkeep import Upkept

R = TypeVar("R")
FAILED = 1


def install_functions(
    url: Annotated[str, typer.Argument(help="The store, with the credential that may load functions.")],
) -> None:
    """Load the functions that servers call into Redis or Valkey; the servers' own credential cannot, and need not."""
    from hope_serve.memory.redis.make import install_functions as install

    epoch = asyncio.run(install(url))
    typer.echo(f"the functions are installed; the store's epoch is {epoch}")


def move(
    source: Annotated[str, typer.Argument(help="The store to copy from; nobody may write to it meanwhile.")],
    target: Annotated[str, typer.Argument(help="The store to copy to.")],
    source_key_file: Annotated[Path | None, typer.Option(help="The source's keys, if it has any.")] = None,
    config: ConfigFile = None,
) -> None:
    """Copy every memory to another store, under its keys; the configuration's keys and limits are the target's."""
    from hope_serve.memory.moving import Moved, copy_memories
    from hope_serve.server.stores import opened_store

    settings = load_config(config, {"memory.url": target}).memory
    origin = MemoryConfig(url=source, key_file=str(source_key_file or ""))

    async def copied() -> Moved:
        async with opened_store(origin) as old, opened_store(settings, secret=memory_key_secret()) as new:
            return await copy_memories(old, new)

    moved = asyncio.run(copied())
    typer.echo(f"{moved.memories} memories were copied, {moved.present} were there already; the source is as it was")


def rotate_keys(config: ConfigFile = None, memory: StoreUrl = None) -> None:
    """Wrap every data key with the current key; afterwards the former keys may be destroyed."""
    _report("wrapped anew", _with_store(_settings(config, memory), lambda store, _: store.upkeep.rotate_keys()))


def upkeep(config: ConfigFile = None, memory: StoreUrl = None) -> None:
    """Expire memories idle for memory.max_idle_seconds and count usage again, now; servers do so by and by."""
    from hope_serve.server.upkeep import keep_up

    typer.echo(_with_store(_settings(config, memory), lambda store, limits: keep_up(store.upkeep, limits)))


def audit(
    user: Annotated[str, typer.Argument(metavar="[USER]", help="Whose changes. Default: everybody's.")] = "",
    tenant: Annotated[str, typer.Option(help="The user's tenant.")] = DEFAULT_TENANT,
    limit: Annotated[int, typer.Option(help="Lines to show at most, the latest.", min=1)] = 100,
    config: ConfigFile = None,
    memory: StoreUrl = None,
) -> None:
    """Show the record of changes: no names and no text, but whoever may open the store can ask for one user's."""
    settings = _settings(config, memory)
    if not settings.memory.audit_log:
        raise ConfigError("memory.audit_log is not set; name the file that the servers write")
    owner = _with_store(settings, lambda store, _: _owner_key(store, tenant, user)) if user else ""
    table = Table("when (UTC)", "what", "version", "kind", "bytes", "owner", "request", "by", "status")
    for event in _events(expanded(settings.memory.audit_log), owner)[-limit:]:
        row = (event.action.value, str(event.version), event.kind, f"{event.num_bytes:,}", event.owner, event.request)
        table.add_row(when(event.time), *row, event.by, event.status)
    Console().print(table)


def _events(path: Path, owner: str) -> list[AuditEvent]:
    from hope_serve.memory.audit import AuditEvent

    try:
        lines = path.read_bytes().splitlines()
        events = [msgspec.json.decode(line, type=AuditEvent) for line in lines]
    except OSError as error:
        raise ConfigError(f"memory.audit_log {path} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"memory.audit_log {path} has a line that is no record of a change: {error}") from error
    return [event for event in events if owner in ("", event.owner)]


async def _owner_key(store: SealedStore, tenant: str, user: str) -> str:
    return store.owner_key(Owner(tenant=tenant, user=user))


def _settings(config: Path | None, url: str | None) -> Config:
    return load_config(config, {"memory.url": url})


def _with_store(settings: Config, work: Callable[[SealedStore, MemoryConfig], Awaitable[R]]) -> R:
    from hope_serve.server.stores import opened_store

    async def worked() -> R:
        async with opened_store(settings.memory, secret=memory_key_secret()) as store:
            return await work(store, settings.memory)

    return asyncio.run(worked())


def _report(verb: str, done: Upkept) -> None:
    typer.echo(f"{done.changed} of {done.seen} memories were {verb}")
    if done.damaged:
        typer.echo(f"these failed their seals and are as they were: {', '.join(done.damaged)}", err=True)
        raise typer.Exit(FAILED)
