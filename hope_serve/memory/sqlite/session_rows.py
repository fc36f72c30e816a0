"""The statements about conversations, each inside one transaction."""

from __future__ import annotations

import sqlite3

from hope_serve.memory.backend import SessionRow
from hope_serve.memory.sqlite.rows import read_head


def read_session(connection: sqlite3.Connection, owner: str, session: str, now: float) -> SessionRow | None:
    """See ``Backend.read_session``."""
    row = connection.execute(
        "SELECT CAST(turn AS INTEGER), CAST(base_version AS INTEGER), generation, CAST(manifest AS BLOB) "
        "FROM sessions WHERE owner = ? AND session = ? AND expires_at > ?",
        (owner, session, now),
    ).fetchone()
    if row is None:
        return None
    chunks = connection.execute(
        "SELECT CAST(data AS BLOB) FROM session_chunks WHERE owner = ? AND session = ? ORDER BY number",
        (owner, session),
    )
    return SessionRow(
        turn=row[0], base_version=row[1], generation=row[2], manifest=row[3], chunks=[chunk for (chunk,) in chunks]
    )


def write_session(
    connection: sqlite3.Connection, owner: str, session: str, row: SessionRow, now: float, ttl: float
) -> int | None:
    """See ``Backend.write_session``. Also removes conversations of anybody that have expired."""
    if row.base_version < read_head(connection, owner).tomb:
        return -1
    remove_expired(connection, now)
    stored = connection.execute(
        "SELECT turn FROM sessions WHERE owner = ? AND session = ?", (owner, session)
    ).fetchone()
    turn = int(stored[0]) if stored else 0
    if row.turn != turn + 1:
        return turn
    _remove(connection, owner, session)
    connection.execute(
        "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?)",
        (owner, session, row.turn, row.base_version, row.generation, row.manifest, now + ttl),
    )
    connection.executemany(
        "INSERT INTO session_chunks VALUES (?, ?, ?, ?)",
        ((owner, session, number, chunk) for number, chunk in enumerate(row.chunks)),
    )
    return None


def delete_session(connection: sqlite3.Connection, owner: str, session: str) -> bool:
    """See ``Backend.delete_session``."""
    return _remove(connection, owner, session)


def remove_expired(connection: sqlite3.Connection, now: float) -> None:
    """Remove conversations whose time has passed."""
    expired = connection.execute("SELECT owner, session FROM sessions WHERE expires_at <= ?", (now,)).fetchall()
    for owner, session in expired:
        _remove(connection, owner, session)


def _remove(connection: sqlite3.Connection, owner: str, session: str) -> bool:
    connection.execute("DELETE FROM session_chunks WHERE owner = ? AND session = ?", (owner, session))
    return connection.execute("DELETE FROM sessions WHERE owner = ? AND session = ?", (owner, session)).rowcount > 0
