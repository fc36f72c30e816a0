"""``hope-serve memory backup|restore``: a whole SQLite store, kept aside while it serves, and brought back checked."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import msgspec
import typer

from hope_serve.cli.options import ConfigFile, StoreUrl
from hope_serve.config import ConfigError, MemoryConfig, load_config, memory_key_secret
from hope_serve.errors import CorruptMemory, FailedPrecondition, InvalidRequest

if TYPE_CHECKING:
    from hope_serve.memory.checking import Checked

FAILED = 1


def backup(
    dest: Annotated[Path, typer.Argument(help="Is written, and DEST.key beside it; neither may be there yet.")],
    config: ConfigFile = None,
    memory: StoreUrl = None,
) -> None:
    """Copy a SQLite store as it is at one moment, while servers use it, and check that all of it can be read."""
    from hope_serve.memory.sqlite.copies import copy_database
    from hope_serve.memory.sqlite.installation import key_path

    settings = load_config(config, {"memory.url": memory}).memory
    source = _database(settings)
    for path in (dest, key_path(dest)):
        if path.exists():
            raise ConfigError(f"{path} is there already; remove it, or choose another name")
    with _room_beside(dest) as draft:
        copy_database(source, draft)
        with _naming(source, draft):
            found = _check(settings, draft)
        key_path(draft).rename(key_path(dest))
        draft.rename(dest)
    typer.echo(
        f"{dest} and {key_path(dest).name} hold {found.memories} memories in {found.versions} versions; keep both as "
        "safe as the store: the second may be the key to the first"
    )
    if found.damaged:
        typer.echo(f"these failed their seals, in the store as well: {', '.join(found.damaged)}", err=True)
        raise typer.Exit(FAILED)


def restore(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="What `backup` wrote, with SRC.key beside it.")],
    config: ConfigFile = None,
    memory: StoreUrl = None,
) -> None:
    """Put a backup in the place of a SQLite store that nobody has open; only once every byte of it was read.

    What was there before stays beside it. Memories that were erased after the backup come back: erase them again.
    """
    from hope_serve.memory.sqlite.copies import copy_database, place_database

    settings = load_config(config, {"memory.url": memory}).memory
    target = _database(settings)
    with _room_beside(target) as draft:
        copy_database(source, draft)
        with _naming(source, draft):
            found = _check(settings, draft)
        if found.damaged:
            raise CorruptMemory(
                f"{source} is not restored: the memories of {', '.join(found.damaged)} failed their seals; take "
                "another backup"
            )
        suffix = place_database(draft, target)
    former = f"; what was there is kept as {target.name}{suffix}" if suffix else ""
    typer.echo(f"{target} holds {found.memories} memories in {found.versions} versions, every byte checked{former}")


def _database(settings: MemoryConfig) -> Path:
    from hope_serve.memory.url import database_path
    from hope_serve.memory.url_parts import split_url

    parts = split_url(settings.url)
    if parts.scheme in ("redis", "rediss"):
        raise InvalidRequest(
            "memory",
            f"{parts.place} is kept by Redis, and so are its backups: save with `BGSAVE` and copy dump.rdb, or with "
            "`redis-cli --rdb`, functions included, and bring it back as deploy/README.md says; or copy it into a "
            "file while no server writes: "
            "`hope-serve memory move REDIS_URL sqlite:///path`",
        )
    return database_path(settings.url)


@contextmanager
def _room_beside(path: Path) -> Iterator[Path]:
    """A name for a draft on the same disk, for nobody else's eyes; what is left under it is removed."""
    try:
        room = tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.absolute().parent)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    with room as folder:
        yield Path(folder) / path.name


@contextmanager
def _naming(source: Path, draft: Path) -> Iterator[None]:
    """What is wrong with a draft is wrong with the file it was copied from, which people know."""
    try:
        yield
    except (CorruptMemory, FailedPrecondition) as error:
        raise type(error)(str(error).replace(str(draft), str(source)), reason=error.reason) from error


def _check(settings: MemoryConfig, draft: Path) -> Checked:
    """Open the draft as a server would, under the configured keys, and read all of it."""
    from hope_serve.memory.checking import check_memories
    from hope_serve.memory.sqlite.copies import settle
    from hope_serve.server.stores import opened_store

    own = msgspec.structs.replace(settings, url=f"sqlite://{quote(str(draft))}", audit_log="")

    async def checked() -> Checked:
        async with opened_store(own, secret=memory_key_secret()) as store:
            return await check_memories(store)

    found = asyncio.run(checked())
    settle(draft)
    return found
