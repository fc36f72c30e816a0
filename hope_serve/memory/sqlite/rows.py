"""The statements: what each backend call reads and writes, inside one transaction."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Mapping, Sequence

from hope_serve.errors import CorruptMemory
from hope_serve.memory.backend import (
    JOURNAL_SECONDS,
    JOURNAL_VERSIONS,
    Erased,
    HeadRow,
    JournalRow,
    Outcome,
    OwnerRow,
    Place,
    Record,
    Usage,
    Verdict,
    VersionRow,
    Write,
)

# The casts keep a damaged file from handing out values of other types.
_HEAD = (
    "CAST(version AS INTEGER), CAST(mark AS TEXT), CAST(tomb AS INTEGER), CAST(num_bytes AS INTEGER), "
    "CAST(updated_at AS REAL), CAST(seal AS BLOB)"
)


def claim_secret(connection: sqlite3.Connection, offered: bytes) -> bytes:
    """See ``Backend.claim_secret``."""
    connection.execute("INSERT OR IGNORE INTO meta VALUES ('secret', ?)", (offered,))
    secret: bytes = connection.execute("SELECT value FROM meta WHERE name = 'secret'").fetchone()[0]
    return secret


def read_secret(connection: sqlite3.Connection) -> bytes:
    """See ``Backend.secret``."""
    row = connection.execute("SELECT CAST(value AS BLOB) FROM meta WHERE name = 'secret'").fetchone()
    return bytes(row[0]) if row else b""


def replace_secret(connection: sqlite3.Connection, before: bytes, after: bytes) -> bool:
    """See ``Backend.replace_secret``."""
    changed = connection.execute("UPDATE meta SET value = ? WHERE name = 'secret' AND value = ?", (after, before))
    return changed.rowcount > 0


def claim_key(connection: sqlite3.Connection, owner: str, tenant: str, name: bytes, offered: bytes, tomb: int) -> bytes:
    """See ``Backend.claim_key``."""
    read_head(connection, owner)
    connection.execute(
        "INSERT OR IGNORE INTO owners (owner, tenant, name, data_key) VALUES (?, ?, ?, ?)",
        (owner, tenant, name, offered),
    )
    held, erased = connection.execute("SELECT data_key, tomb FROM owners WHERE owner = ?", (owner,)).fetchone()
    if erased > tomb:
        return b""
    if not held:
        connection.execute(
            "UPDATE owners SET data_key = ?, name = ?, tenant = ? WHERE owner = ?", (offered, name, tenant, owner)
        )
    return bytes(held or offered)


def read_head(connection: sqlite3.Connection, owner: str) -> HeadRow:
    """See ``Backend.head``."""
    row = connection.execute(f"SELECT {_HEAD} FROM owners WHERE owner = ?", (owner,)).fetchone()  # noqa: S608
    return _head(row) if row else _never_written(connection, owner)


def read_record(connection: sqlite3.Connection, owner: str) -> Record:
    """See ``Backend.read``."""
    row = connection.execute(
        f"SELECT CAST(data_key AS BLOB), erased_versions, erased_sessions, {_HEAD} FROM owners WHERE owner = ?",  # noqa: S608
        (owner,),
    ).fetchone()
    if row is None:
        return Record(head=_never_written(connection, owner))
    kept = connection.execute(
        "SELECT CAST(version AS INTEGER), CAST(about AS BLOB), CAST(manifest AS BLOB) FROM versions "
        "WHERE owner = ? AND manifest IS NOT NULL",
        (owner,),
    )
    return Record(
        head=_head(row[3:]),
        data_key=row[0],
        erased=None if row[1] is None else Erased(versions=row[1], sessions=row[2]),
        versions={version: VersionRow(about=about, manifest=manifest) for version, about, manifest in kept},
    )


def read_chunks(connection: sqlite3.Connection, owner: str, places: Sequence[Place]) -> Mapping[Place, bytes]:
    """See ``Backend.chunks``."""
    found: dict[Place, bytes] = {}
    statement = "SELECT CAST(data AS BLOB) FROM chunks WHERE owner = ? AND generation = ? AND number = ?"
    for place in places:
        row = connection.execute(statement, (owner, *place)).fetchone()
        if row:
            found[place] = row[0]
    return found


def find(connection: sqlite3.Connection, owner: str, request: str) -> JournalRow | None:
    """See ``Backend.find``."""
    row = connection.execute(
        "SELECT CAST(version AS INTEGER), digest, CAST(result AS BLOB) FROM journal WHERE owner = ? AND request = ?",
        (owner, request),
    ).fetchone()
    return JournalRow(version=row[0], digest=row[1], result=row[2]) if row else None


def write(connection: sqlite3.Connection, owner: str, new: Write) -> Outcome:
    """See ``Backend.write``."""
    if refused := refusal(connection, owner, new):
        return refused
    connection.executemany(
        "INSERT INTO chunks VALUES (?, ?, ?, ?)",
        ((owner, new.generation, number, chunk) for number, chunk in enumerate(new.chunks)),
    )
    connection.execute(
        "INSERT INTO versions VALUES (?, ?, ?, ?, ?)", (owner, new.version, new.now, new.about, new.manifest)
    )
    connection.execute(
        "INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?)",
        (owner, new.request, new.version, new.digest, new.result, new.now),
    )
    connection.execute(
        "UPDATE owners SET version = ?, mark = ?, num_bytes = ?, updated_at = ?, seal = ? WHERE owner = ?",
        (new.version, new.mark, new.num_bytes, new.now, new.head_seal, owner),
    )
    _prune(connection, owner, new)
    return Outcome(verdict=Verdict.OK)


def read_abouts(connection: sqlite3.Connection, owner: str) -> Sequence[tuple[int, bytes]]:
    """See ``Backend.abouts``."""
    return connection.execute(
        "SELECT CAST(version AS INTEGER), CAST(about AS BLOB) FROM versions WHERE owner = ? ORDER BY version", (owner,)
    ).fetchall()


def erase(connection: sqlite3.Connection, owner: str, base_version: int | None, tombstone: HeadRow) -> Erased | None:
    """See ``Backend.erase``. Request ids stay, without their replies, so that a late retry is not applied anew."""
    if base_version is not None and read_head(connection, owner).version != base_version:
        return None
    removed = Erased(versions=_delete(connection, "versions", owner), sessions=_delete(connection, "sessions", owner))
    _delete(connection, "chunks", owner)
    _delete(connection, "session_chunks", owner)
    connection.execute("UPDATE journal SET version = 0, digest = '', result = x'' WHERE owner = ?", (owner,))
    connection.execute(
        "INSERT OR IGNORE INTO owners (owner, tenant, name, data_key) VALUES (?, '', x'', x'')", (owner,)
    )
    connection.execute(
        "UPDATE owners SET name = x'', data_key = x'', version = ?, mark = ?, tomb = ?, num_bytes = ?, updated_at = ?, "
        "seal = ?, erased_versions = ?, erased_sessions = ? WHERE owner = ?",
        (*dataclasses.astuple(tombstone), removed.versions, removed.sessions, owner),
    )
    return removed


def count_erased(connection: sqlite3.Connection, owner: str, erased: Erased) -> None:
    """Set what the owner's erasure is said to have removed."""
    connection.execute(
        "UPDATE owners SET erased_versions = ?, erased_sessions = ? WHERE owner = ?",
        (erased.versions, erased.sessions, owner),
    )


def read_owners(connection: sqlite3.Connection, tenant: str | None, after: str, limit: int) -> Sequence[OwnerRow]:
    """See ``Backend.owners``."""
    rows = connection.execute(
        f"SELECT owner, tenant, CAST(name AS BLOB), CAST(data_key AS BLOB), {_HEAD} FROM owners "  # noqa: S608
        "WHERE (?1 IS NULL OR tenant = ?1) AND owner > ?2 ORDER BY owner LIMIT ?3",
        (tenant, after, limit),
    )
    return [
        OwnerRow(owner=row[0], tenant=row[1], name=row[2], data_key=row[3], head=_head(row[4:]), cursor=row[0])
        for row in rows
    ]


def rekey(connection: sqlite3.Connection, owner: str, before: bytes, after: bytes) -> bool:
    """See ``Backend.rekey``."""
    changed = connection.execute(
        "UPDATE owners SET data_key = ? WHERE owner = ? AND data_key = ?", (after, owner, before)
    )
    return changed.rowcount > 0


def read_usage(connection: sqlite3.Connection, tenant: str) -> Usage:
    """See ``Backend.usage``."""
    owners, num_bytes = connection.execute(
        "SELECT count(*), coalesce(sum(num_bytes), 0) FROM owners WHERE tenant = ? AND version > tomb", (tenant,)
    ).fetchone()
    return Usage(owners=owners, num_bytes=num_bytes)


def refusal(connection: sqlite3.Connection, owner: str, new: Write) -> Outcome | None:
    """What ``write`` answers without writing; None when it would write."""
    head, journal = read_head(connection, owner), find(connection, owner, new.request)
    if new.base_version < head.tomb or (journal and journal.version == 0):
        return Outcome(verdict=Verdict.GONE, head=head)
    if journal:
        same = journal.digest == new.digest
        return Outcome(verdict=Verdict.DUPLICATE if same else Verdict.REUSED, head=head, journal=journal)
    if (head.version, head.mark) != (new.base_version, new.base_mark):
        return Outcome(verdict=Verdict.CONFLICT, head=head)
    return None


def _prune(connection: sqlite3.Connection, owner: str, new: Write) -> None:
    connection.execute(
        "UPDATE versions SET manifest = NULL WHERE owner = ? AND version < ? AND manifest IS NOT NULL",
        (owner, new.oldest_kept),
    )
    connection.executemany(
        "DELETE FROM chunks WHERE owner = ? AND generation = ? AND number = ?",
        ((owner, *place) for place in new.drops),
    )
    if new.live is not None:
        held = connection.execute("SELECT DISTINCT generation FROM chunks WHERE owner = ?", (owner,)).fetchall()
        connection.executemany(
            "DELETE FROM chunks WHERE owner = ? AND generation = ?",
            ((owner, generation) for (generation,) in held if generation not in new.live),
        )
    aged = (owner, new.version - JOURNAL_VERSIONS, new.now - JOURNAL_SECONDS)
    connection.execute("DELETE FROM journal WHERE owner = ? AND version <= ? AND created_at < ?", aged)
    connection.execute("DELETE FROM versions WHERE owner = ? AND version <= ? AND created_at < ?", aged)


def _delete(connection: sqlite3.Connection, table: str, owner: str) -> int:
    return connection.execute(f"DELETE FROM {table} WHERE owner = ?", (owner,)).rowcount  # noqa: S608


def _never_written(connection: sqlite3.Connection, owner: str) -> HeadRow:
    if connection.execute("SELECT 1 FROM versions WHERE owner = ?", (owner,)).fetchone():
        raise CorruptMemory("versions of the memory are there, but its head is missing; only erasing is left")
    return HeadRow()


def _head(row: Sequence[object]) -> HeadRow:
    version, mark, tomb, num_bytes, updated_at, seal = row
    return HeadRow(version=version, mark=mark, tomb=tomb, num_bytes=num_bytes, updated_at=updated_at, seal=seal)  # type: ignore[arg-type]
