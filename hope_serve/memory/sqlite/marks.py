"""Notes of upkeep, beside the store's own facts."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

_PREFIX = "mark:"


def read_marks(connection: sqlite3.Connection, names: Sequence[str]) -> Mapping[str, bytes]:
    """See ``Backend.marks``."""
    found = {}
    for name in names:
        row = connection.execute("SELECT CAST(value AS BLOB) FROM meta WHERE name = ?", (_PREFIX + name,)).fetchone()
        if row:
            found[name] = bytes(row[0])
    return found


def set_mark(connection: sqlite3.Connection, name: str, mark: bytes) -> None:
    """See ``Backend.set_mark``."""
    if mark:
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_PREFIX + name, mark))
    else:
        connection.execute("DELETE FROM meta WHERE name = ?", (_PREFIX + name,))
