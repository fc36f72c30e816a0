"""API keys: long random secrets of which a file keeps sha256 digests, with tenant, scopes and user of each.

A key reads ``hope_<id>_<secret>``. The file is JSON that ``hope-serve key`` writes; no line of it opens anything.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from hope_serve.identity.caller import Caller, Scope
from hope_serve.identity.limits import NO_LIMITS, Limits
from hope_serve.section import ConfigError

PREFIX = "hope_"
_FORMAT = 1
_SECRET_BYTES = 32


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line of the file.

    Args:
        id: names the key in logs, lists and revocations.
        digest: sha256 of the whole key, in hex.
        tenant, scopes, user: as of ``Caller``.
        note: for people.
        created_at, expires_at: Unix seconds; 0 never expires.
        limits: of what is done with the key.
    """

    id: str
    digest: str
    tenant: str
    scopes: tuple[Scope, ...]
    user: str = ""
    note: str = ""
    created_at: float = 0.0
    expires_at: float = 0.0
    limits: Limits = NO_LIMITS

    def caller(self) -> Caller:
        """Who the key speaks for. Raises ValueError."""
        return Caller(
            tenant=self.tenant, scopes=frozenset(self.scopes), user=self.user, name=self.id, limits=self.limits
        )


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """What a key shall open; the fields are those of ``ApiKey``.

    Raises:
        ValueError: a tenant or user that is none, or no scope.
    """

    tenant: str
    scopes: tuple[Scope, ...]
    user: str = ""
    note: str = ""
    expires_at: float = 0.0
    limits: Limits = NO_LIMITS

    def __post_init__(self) -> None:
        if not self.scopes:
            raise ValueError("a key without scopes opens nothing; name at least one")
        Caller(tenant=self.tenant, scopes=frozenset(self.scopes), user=self.user)


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int
    keys: tuple[ApiKey, ...]


class ApiKeys:
    """The keys of one state of the file."""

    def __init__(self, keys: tuple[ApiKey, ...], *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._known = {key.digest: (key.caller(), key.expires_at) for key in keys}

    def caller(self, presented: str) -> Caller | None:
        """Who presents the key; None for one that is unknown, revoked or expired."""
        # The digest of a guess says nothing about the digest of a key, so the time of this look-up gives nothing away.
        caller, expires_at = self._known.get(digest_of(presented), (None, 0.0))
        return None if expires_at and expires_at <= self._clock() else caller


def digest_of(presented: str) -> str:
    """What the file keeps of a key."""
    return hashlib.sha256(presented.encode(errors="surrogatepass")).hexdigest()


def load_keys(path: Path) -> tuple[ApiKey, ...]:
    """The keys of a file.

    Raises:
        ConfigError: it is not there, is no such file, or others than its owner may write to it.
    """
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o022:
            raise ConfigError(f"the key file {path} may be written by others; run `chmod go-w` on it")
        found = msgspec.json.decode(path.read_bytes(), type=_File)
        if found.format != _FORMAT:
            raise ConfigError(f"the key file {path} has format {found.format}, and this program knows {_FORMAT}")
        for key in found.keys:
            key.caller()
    except OSError as error:
        raise ConfigError(f"the key file {path} cannot be read ({error.strerror}); check the path") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no key file ({error}); `hope-serve key new` makes one") from error
    return found.keys


def new_key(path: Path, asked: NewKey) -> tuple[ApiKey, str]:
    """Add a key to the file, which is made when it is not there; the key's line, and the key itself, shown only now.

    Raises:
        ConfigError: as ``load_keys``; or the file cannot be written.
    """
    name = secrets.token_hex(4)
    shown = f"{PREFIX}{name}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    key = ApiKey(id=name, digest=digest_of(shown), created_at=time.time(), **asdict(asked))
    with _changing(path):
        _write(path, (*(load_keys(path) if path.exists() else ()), key))
    return key, shown


def revoke_key(path: Path, name: str) -> ApiKey:
    """Take a key out of the file.

    Raises:
        ConfigError: no key has this id; or as ``load_keys``.
    """
    with _changing(path):
        keys = load_keys(path)
        gone = next((key for key in keys if key.id == name), None)
        if gone is None:
            raise ConfigError(f"{path} has no key {name!r}; `hope-serve key list` shows those it has")
        _write(path, tuple(key for key in keys if key.id != name))
    return gone


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """One writer of the folder's key files at a time."""
    try:
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(f"the folder {path.parent} cannot be opened ({error.strerror}); make it first") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _write(path: Path, keys: tuple[ApiKey, ...]) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    content = msgspec.json.format(msgspec.json.encode(_File(format=_FORMAT, keys=keys)))
    try:
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o600
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # who may read it today may read it tomorrow
            file.write(content + b"\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"the key file {path} cannot be written ({error.strerror})") from error
