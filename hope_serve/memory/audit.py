"""Who changed which memory when, without a word of what was in it: names as keyed hashes, no text, no tensors."""

from __future__ import annotations

import enum
import logging
import os
from pathlib import Path
from typing import Protocol

import msgspec

_log = logging.getLogger(__name__)


class Action(enum.Enum):
    """What was done."""

    COMMIT = "commit"
    ROLLBACK = "rollback"
    ERASE = "erase"
    EXPORT = "export"
    ROTATE_KEY = "rotate_key"
    EXPIRE = "expire"
    READ = "read"


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log.

    Args:
        time: Unix seconds.
        action: what was done.
        owner, tenant, request: the store's hashes of the names; "" where there is none.
        version: the version that it made, or read.
        kind: how the version came to be: adapt, rollback, fork, import. Of a read: the RPC.
        by: name of the credential that did it; "everybody" without credentials, "" for the server's own jobs.
        status: of a read: how the RPC ended.
        num_bytes: bytes of the version's tensors.
        digest: state digest of the version.
    """

    time: float
    action: Action
    owner: str
    tenant: str
    request: str = ""
    version: int = 0
    kind: str = ""
    by: str = ""
    status: str = ""
    num_bytes: int = 0
    digest: str = ""


class AuditLog(Protocol):
    """Takes events after they happened. It must neither block nor raise: what was done stands."""

    def record(self, event: AuditEvent) -> None:
        """Keep one event."""
        ...


class AuditFile:
    """Appends each event as a line of JSON. Several processes may share the file.

    Args:
        path: of the file; made with mode 0600.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def record(self, event: AuditEvent) -> None:
        """Append one line; what the disk does not take goes to the process's own log instead."""
        line = msgspec.json.encode(event) + b"\n"
        try:
            written = os.write(self._descriptor, line)
        except OSError as error:
            _log.error("the audit log does not take events (%s): %s", error.strerror, line.decode().strip())
            return
        if written < len(line):
            _log.error("the audit log took %d bytes of an event: %s", written, line.decode().strip())

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)


class NoAudit:
    """Keeps nothing."""

    def record(self, event: AuditEvent) -> None:
        """Forget the event."""
