"""From the configuration's [memory] to an open store: address, durability, keys, quotas, record of changes."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from urllib.parse import parse_qs

from hope_serve.api import Durability
from hope_serve.config import ConfigError, MemoryConfig, expanded
from hope_serve.memory.audit import AuditFile, AuditLog, NoAudit
from hope_serve.memory.key_file import load_key_file, parse_key_secret
from hope_serve.memory.keys import KeyRing
from hope_serve.memory.options import StoreOptions
from hope_serve.memory.quotas import Quotas
from hope_serve.memory.sealed_store import SealedStore
from hope_serve.memory.url import make_store
from hope_serve.memory.url_parts import split_url
from hope_serve.server.attribution import AttributedAudit


@asynccontextmanager
async def opened_store(config: MemoryConfig, *, secret: str = "") -> AsyncIterator[SealedStore]:
    """The store, open; leaving closes it.

    Args:
        secret: keys as ``config.memory_key_secret`` gives them; "" for none.

    Raises:
        ConfigError: settings that contradict each other, or a file or service that is not there.
        FailedPrecondition, CorruptMemory, Unavailable: as ``make_store`` and ``MemoryStore.open``.
    """
    with ExitStack() as closing:
        quotas = Quotas(
            user_bytes=config.max_user_bytes,
            tenant_bytes=config.max_tenant_bytes,
            tenant_users=config.max_tenant_users,
        )
        options = StoreOptions(
            keep_versions=config.keep_versions, quotas=quotas, audit=_audit_log(config.audit_log, closing)
        )
        store = make_store(durable_url(config), keys=_keys(config, secret), options=options)
        try:
            await store.open()
            yield store
        finally:
            await store.close()


def durable_url(config: MemoryConfig) -> str:
    """The store's URL with the configured durability in it.

    Raises:
        ConfigError: the URL says another durability, or its store has only one.
    """
    if not config.durability:
        return config.url
    parts = split_url(config.url)
    if parts.scheme == "sqlite":
        if config.durability != Durability.LOCAL_FSYNC.value:
            raise ConfigError(
                f"memory.durability is {config.durability}, but SQLite always gives local_fsync; leave it out, or "
                "use a redis:// url"
            )
        return config.url
    said = parse_qs(parts.query).get("durability", [config.durability])
    if said != [config.durability]:
        raise ConfigError(f"memory.durability is {config.durability}, and memory.url says {said[-1]}; say it once")
    if "durability" in parse_qs(parts.query):
        return config.url
    return parts.with_option("durability", config.durability)


def _keys(config: MemoryConfig, secret: str) -> KeyRing | None:
    named = [f"memory.{name}" for name in ("key_file", "key_service") if getattr(config, name)]
    if named and secret:
        raise ConfigError(f"{named[0]} and the variable HOPE_MEMORY_KEYS are both set; set one")
    if secret:
        return parse_key_secret(secret)
    if config.key_file:
        return load_key_file(expanded(config.key_file))
    return _key_service(config.key_service) if config.key_service else None


def _key_service(name: str) -> KeyRing:
    module, _, function = name.partition(":")
    try:
        ring: KeyRing = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"memory.key_service is {name!r}: {error}; write module:function, with the module on the Python path"
        ) from error
    return ring


def _audit_log(path: str, closing: ExitStack) -> AuditLog:
    if not path:
        return NoAudit()
    try:
        log = AuditFile(expanded(path))
    except OSError as error:
        raise ConfigError(f"memory.audit_log {path} cannot be written ({error.strerror}); choose another") from error
    closing.callback(log.close)
    return AttributedAudit(log)
