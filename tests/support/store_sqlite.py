"""The SQLite store's files, as the contract tests handle any store's: open it again, reach under it."""

import sqlite3
from dataclasses import dataclass

from hope_serve.memory.url import make_store

_BLOBS = {
    "chunks": ("chunks", "data"),
    "manifest": ("versions", "manifest"),
    "about": ("versions", "about"),
    "result": ("journal", "result"),
    "data_key": ("owners", "data_key"),
    "head_seal": ("owners", "seal"),
    "session": ("sessions", "manifest"),
    "session_chunks": ("session_chunks", "data"),
}


@dataclass(frozen=True)
class Spot:
    """A stored value: which table, column and row, and what it holds."""

    kind: str
    where: str
    row: tuple


class SqliteStorage:
    """One database file."""

    def __init__(self, folder, keys=None):
        self.path = folder / "memories.db"
        self.keys = keys
        self._open = []

    async def store(self, **options):
        """A store of its own on the file, as another process would have."""
        store = make_store(f"sqlite://{self.path}", keys=options.pop("keys", self.keys), **options)
        await store.open()
        self._open.append(store)
        return store

    async def close(self):
        for store in self._open:
            await store.close()

    async def spots(self, kind, owner):
        """Where the owner's values of this kind rest, in order. ``owner`` is the index of one."""
        table, _ = _BLOBS[kind]
        keys = {
            "chunks": "generation, number",
            "versions": "version",
            "journal": "request",
            "owners": "owner",
            "sessions": "session",
            "session_chunks": "session, number",
        }[table]
        column = _BLOBS[kind][1]
        with self._connect() as connection:
            rows = connection.execute(
                f"SELECT {keys} FROM {table} WHERE owner = ? AND length({column}) > 0 ORDER BY {keys}", (owner,)
            ).fetchall()
        condition = " AND ".join(f"{key} = ?" for key in keys.split(", "))
        return [Spot(kind, f"owner = ? AND {condition}", (owner, *row)) for row in rows]

    async def get(self, spot):
        table, column = _BLOBS[spot.kind]
        with self._connect() as connection:
            return connection.execute(f"SELECT {column} FROM {table} WHERE {spot.where}", spot.row).fetchone()[0]

    async def put(self, spot, value):
        """Set the value; None removes it."""
        table, column = _BLOBS[spot.kind]
        with self._connect() as connection:
            if value is None:
                connection.execute(f"DELETE FROM {table} WHERE {spot.where}", spot.row)
            else:
                connection.execute(f"UPDATE {table} SET {column} = ? WHERE {spot.where}", (value, *spot.row))

    async def head(self, owner):
        """The head's readable fields."""
        with self._connect() as connection:
            return connection.execute(
                "SELECT version, tomb, num_bytes, updated_at, mark FROM owners WHERE owner = ?", (owner,)
            ).fetchone()

    async def put_head(self, owner, field, value):
        with self._connect() as connection:
            connection.execute(f"UPDATE owners SET {field} = ? WHERE owner = ?", (value, owner))

    async def everything(self):
        """Every stored byte, and every key."""
        with self._connect() as connection:
            return "\n".join(connection.iterdump()).encode() + self.path.read_bytes()

    def _connect(self):
        connection = sqlite3.connect(self.path, timeout=10)
        connection.execute("PRAGMA synchronous = OFF")
        return _Closing(connection)


class _Closing:
    """A connection that commits and closes at the end of a with-block."""

    def __init__(self, connection):
        self._connection = connection

    def __enter__(self):
        return self._connection

    def __exit__(self, kind, error, trace):
        if kind is None:
            self._connection.commit()
        self._connection.close()
