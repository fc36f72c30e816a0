"""From ``--memory URL`` to a store."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from hope_serve.errors import InvalidRequest
from hope_serve.memory.keys import KeyRing, single_key
from hope_serve.memory.options import StoreOptions
from hope_serve.memory.redis.address import parse_address
from hope_serve.memory.redis.make import make_redis_store
from hope_serve.memory.redis.node import Limits
from hope_serve.memory.sealed_store import SealedStore
from hope_serve.memory.sqlite.backend import SqliteBackend
from hope_serve.memory.sqlite.installation import find_installation
from hope_serve.memory.url_parts import split_url


def make_store(url: str, *, keys: KeyRing | None = None, options: StoreOptions | None = None) -> SealedStore:
    """A store that is not open yet.

    Args:
        url: ``sqlite:///absolute/path`` (the file's folder is made when it is not there), ``sqlite:path`` from the
            working folder, or a redis URL as ``redis.address.parse_address`` reads it. As in any URL the third slash
            is the path's own, other than in SQLAlchemy's.
        keys: what wraps the owners' data keys. None: an installation key, and tags instead of encryption.
        options: how the store is to behave.

    Raises:
        InvalidRequest: the URL names no store.
        CorruptMemory, FailedPrecondition: the files are not what they were; see the message.
    """
    parts = split_url(url)
    if parts.scheme == "sqlite":
        return _sqlite_store(database_path(url), keys, options or StoreOptions())
    if parts.scheme in ("redis", "rediss"):
        return make_redis_store(parse_address(url), keys, options or StoreOptions(), Limits())
    raise _no_store(url)


def database_path(url: str) -> Path:
    """The file that a SQLite URL names. Raises InvalidRequest."""
    parts = split_url(url)
    if parts.scheme != "sqlite":
        raise _no_store(url)
    path, rest = unquote(parts.path), parts.authority + parts.query + parts.fragment
    if rest or not path.strip("/") or path.endswith("/"):
        raise InvalidRequest("memory", f"{url!r} names no file; use three slashes and an absolute path: sqlite:///path")
    found = Path(path).absolute()
    if path.startswith("/") and len(found.parts) == 2:
        name = found.name
        raise InvalidRequest(
            "memory",
            f"{url!r} is {path}, in the root folder: the third slash is the path's own; write sqlite:{name} for {name} "
            "in the working folder, or sqlite:///the/whole/path",
        )
    return found


def _no_store(url: str) -> InvalidRequest:
    return InvalidRequest("memory", f"{url!r} names no store; use sqlite:///path/to/file or redis://host:port")


def _sqlite_store(database: Path, keys: KeyRing | None, options: StoreOptions) -> SealedStore:
    try:
        database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequest(
            "memory", f"the folder of {database} cannot be made ({error.strerror}); name one that can be written"
        ) from error
    installation = find_installation(database)
    keys = keys or single_key(installation.key, encrypts=False)
    return SealedStore(SqliteBackend(database, installation), keys, options)
