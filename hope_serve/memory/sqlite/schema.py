"""The tables, and the checks that a file holds them."""

from __future__ import annotations

import re
import sqlite3

from hope_serve.errors import CorruptMemory, FailedPrecondition

APPLICATION_ID = 0x484F5045  # "HOPE"
SCHEMA_VERSION = 2

_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE owners (
    owner TEXT PRIMARY KEY, tenant TEXT NOT NULL, name BLOB NOT NULL, data_key BLOB NOT NULL,
    version INTEGER NOT NULL DEFAULT 0, mark TEXT NOT NULL DEFAULT '', tomb INTEGER NOT NULL DEFAULT 0,
    num_bytes INTEGER NOT NULL DEFAULT 0, updated_at REAL NOT NULL DEFAULT 0, seal BLOB NOT NULL DEFAULT x'',
    erased_versions INTEGER, erased_sessions INTEGER
) WITHOUT ROWID;
CREATE INDEX owners_of_tenant ON owners (tenant, owner);
CREATE TABLE versions (
    owner TEXT NOT NULL, version INTEGER NOT NULL, created_at REAL NOT NULL, about BLOB NOT NULL, manifest BLOB,
    PRIMARY KEY (owner, version)
) WITHOUT ROWID;
CREATE TABLE journal (
    owner TEXT NOT NULL, request TEXT NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL, result BLOB NOT NULL,
    created_at REAL NOT NULL, PRIMARY KEY (owner, request)
) WITHOUT ROWID;
CREATE INDEX journal_by_age ON journal (owner, created_at);
CREATE TABLE chunks (
    owner TEXT NOT NULL, generation TEXT NOT NULL, number INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (owner, generation, number)
);
CREATE TABLE sessions (
    owner TEXT NOT NULL, session TEXT NOT NULL, turn INTEGER NOT NULL, base_version INTEGER NOT NULL,
    generation TEXT NOT NULL, manifest BLOB NOT NULL, expires_at REAL NOT NULL, PRIMARY KEY (owner, session)
) WITHOUT ROWID;
CREATE INDEX sessions_by_expiry ON sessions (expires_at);
CREATE TABLE session_chunks (
    owner TEXT NOT NULL, session TEXT NOT NULL, number INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (owner, session, number)
);
"""


def prepare(connection: sqlite3.Connection, where: str, *, born: bool) -> None:
    """Make the tables in a new file, or check those of an old one. Runs inside a write transaction.

    Raises:
        FailedPrecondition: the file is another program's, or a newer version's.
        CorruptMemory: the tables were there once and are not now.
    """
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables == 0 and application == 0 and not born:
        for statement in _TABLES.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    elif tables == 0 and born:
        raise CorruptMemory(f"{where} has lost its tables; restore it from a backup")
    elif application != APPLICATION_ID:
        raise FailedPrecondition(f"{where} is a database of another program; name another file")
    elif version != SCHEMA_VERSION:
        raise FailedPrecondition(
            f"{where} has schema {version}, and this program knows schema {SCHEMA_VERSION}; run the version that "
            "wrote it, or move its memories with `hope-serve memory move`",
            reason="SCHEMA_VERSION",
        )
    else:
        _require_whole(connection, where)


def _require_whole(connection: sqlite3.Connection, where: str) -> None:
    """Every table is there, and the secret too where there are owners: a new one would make strangers of them all."""
    expected = set(re.findall(r"CREATE TABLE (\w+)", _TABLES))
    found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if lost := sorted(expected - found):
        raise CorruptMemory(f"{where} has lost its tables {', '.join(lost)}; restore it from a backup")
    secret = connection.execute("SELECT 1 FROM meta WHERE name = 'secret'").fetchone()
    if not secret and connection.execute("SELECT 1 FROM owners LIMIT 1").fetchone():
        raise CorruptMemory(f"{where} has lost the secret that its owners are kept under; restore it from a backup")
