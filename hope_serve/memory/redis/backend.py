"""The Redis backend: chunks are staged, then one function moves the version."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from hope_serve.api import Durability
from hope_serve.errors import CorruptMemory, Unavailable
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
    SessionRow,
    Usage,
    Verdict,
    VersionRow,
    Write,
)
from hope_serve.memory.redis import layout
from hope_serve.memory.redis.calls import Answer, Calls, as_bytes, head_row, owner_keys
from hope_serve.memory.redis.facts import claim_once, read_clock, read_marks, read_once, set_mark
from hope_serve.memory.redis.link import Argument, Reply
from hope_serve.memory.redis.owner_index import count_usage, index_owner, list_owners, read_usage
from hope_serve.memory.redis.session_calls import delete_session, read_session, write_session
from hope_serve.memory.redis.staging import fetch_chunks, stage_chunks


class Connection(Protocol):
    """What stands behind the calls."""

    async def open(self, calls: Calls) -> None:
        """Connect, check the servers, give the calls their epoch."""
        ...

    async def close(self) -> None:
        """Finish what is under way and disconnect."""
        ...

    async def check(self, calls: Calls) -> None:
        """Return when the servers are still as ``open`` demands, and of the same installation."""
        ...

    def on_erased(self, tell: Callable[[str | None], None]) -> None:
        """See ``Backend.on_erased``."""
        ...


class RedisBackend:
    """A ``Backend``; the calls are documented there."""

    def __init__(self, calls: Calls, connection: Connection) -> None:
        self._calls = calls
        self._connection = connection

    @property
    def durability(self) -> Durability:
        """Where a write is safe once it has returned."""
        return self._calls.durability

    async def open(self) -> None:
        """Connect and check the servers."""
        try:
            await self._connection.open(self._calls)
        except BaseException:
            await self._connection.close()
            raise

    async def close(self) -> None:
        """Finish what is under way and disconnect."""
        await self._connection.close()

    async def ping(self) -> None:
        """Return when the server answers and its functions are those we began with."""
        await self._calls.read("head", owner_keys("ping"))

    async def check(self) -> None:
        """Ask the servers for their settings again."""
        await self._connection.check(self._calls)

    async def now(self) -> float:
        """The clock of the server that holds the secret."""
        return await read_clock(self._calls)

    async def claim_secret(self, offered: bytes) -> bytes:
        """The store's own wrapped secret."""
        return await claim_once(self._calls, layout.SECRET, offered)

    async def secret(self) -> bytes:
        """The wrapped secret."""
        return await read_once(self._calls, layout.SECRET)

    async def replace_secret(self, before: bytes, after: bytes) -> bool:
        """Replace the wrapped secret."""
        return (await self._calls.write("swap", [layout.SECRET], before, after)).word == "OK"

    async def claim_key(self, owner: str, tenant: str, name: bytes, offered: bytes, *, tomb: int) -> bytes:
        """The owner's wrapped data key. The index comes first: it may hold too many, never too few."""
        await index_owner(self._calls, tenant, owner)
        answer = await self._calls.write("claim", owner_keys(owner), offered, name, tenant, tomb)
        return as_bytes(answer.values[0]) if answer.word == "OK" else b""

    async def head(self, owner: str) -> HeadRow:
        """The small facts."""
        return head_row((await self._calls.read("head", owner_keys(owner))).values)

    async def read(self, owner: str) -> Record:
        """The whole record."""
        values = (await self._calls.read("read", owner_keys(owner))).values
        erased = Erased(versions=int(as_bytes(values[7])), sessions=int(as_bytes(values[8]))) if values[7] else None
        return Record(
            head=head_row(values), data_key=as_bytes(values[6]), erased=erased, versions=_version_rows(values[9:])
        )

    async def chunks(self, owner: str, places: Sequence[Place]) -> Mapping[Place, bytes]:
        """The chunks that are there."""
        return await fetch_chunks(self._calls, owner, places)

    async def find(self, owner: str, request: str) -> JournalRow | None:
        """A journal row."""
        answer = await self._calls.write("find", owner_keys(owner), request)
        return _journal_row(answer.values[0]) if answer.word == "OK" else None

    async def write(self, owner: str, write: Write) -> Outcome:
        """Stage the chunks, then let the function check and move the version."""
        chunks = layout.chunks(owner, write.generation)
        if write.chunks:
            await stage_chunks(self._calls, chunks, write.chunks)
        answer = await self._calls.write("commit", owner_keys(owner, chunks), *_commit_arguments(write))
        if answer.word == "NOCHUNKS":
            raise Unavailable("the staged chunks are gone; try again with the same request id", reason="STAGED_LOST")
        return _outcome(answer)

    async def abouts(self, owner: str) -> Sequence[tuple[int, bytes]]:
        """Versions on record."""
        values = (await self._calls.read("versions", owner_keys(owner))).values
        pairs = zip(values[::2], values[1::2], strict=True)
        return sorted((_number(version), _about(row)) for version, row in pairs)

    async def erase(self, owner: str, base_version: int | None, tombstone: HeadRow) -> Erased | None:
        """Leave nothing but the tombstone, and tell everybody who listens."""
        answer = await self._calls.write(
            "erase",
            owner_keys(owner),
            "" if base_version is None else base_version,
            tombstone.version,
            repr(tombstone.updated_at),
            tombstone.seal,
            JOURNAL_SECONDS * 1000,
            owner,
            tombstone.mark,
        )
        if answer.word != "OK":
            return None
        versions, sessions = answer.values
        assert isinstance(versions, int)
        assert isinstance(sessions, int)
        return Erased(versions=versions, sessions=sessions)

    async def owners(self, tenant: str | None, after: str, limit: int) -> Sequence[OwnerRow]:
        """Owners in order of their cursors."""
        return await list_owners(self._calls, tenant, after, limit)

    async def rekey(self, owner: str, before: bytes, after: bytes) -> bool:
        """Replace a wrapped data key."""
        return (await self._calls.write("rekey", owner_keys(owner), before, after)).word == "OK"

    async def usage(self, tenant: str) -> Usage:
        """What the tenant's memories take."""
        return await read_usage(self._calls, tenant)

    async def count_usage(self, tenant: str, owner: str, num_bytes: int) -> None:
        """The owner's memory has this size now."""
        await count_usage(self._calls, tenant, owner, num_bytes)

    async def marks(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """Those that are there."""
        return await read_marks(self._calls, names)

    async def set_mark(self, name: str, mark: bytes) -> None:
        """Replace a note."""
        await set_mark(self._calls, name, mark)

    def on_erased(self, tell: Callable[[str | None], None]) -> None:
        """Call ``tell`` with an owner whenever one is erased anywhere."""
        self._connection.on_erased(tell)

    async def read_session(self, owner: str, session: str, now: float) -> SessionRow | None:  # noqa: ARG002
        """A conversation that has not expired: the server keeps the time."""
        return await read_session(self._calls, owner, session)

    async def write_session(self, owner: str, session: str, row: SessionRow, *, now: float, ttl: float) -> int | None:  # noqa: ARG002
        """Replace the turn before."""
        return await write_session(self._calls, owner, session, row, ttl)

    async def delete_session(self, owner: str, session: str) -> bool:
        """Forget a conversation."""
        return await delete_session(self._calls, owner, session)


def _commit_arguments(write: Write) -> tuple[Argument, ...]:
    return (
        write.base_version,
        write.version,
        write.request,
        write.digest,
        write.result,
        write.about,
        write.manifest,
        write.head_seal,
        repr(write.now),
        _ms(write.now),
        write.generation if write.chunks else "",
        len(write.chunks),
        write.num_bytes,
        write.oldest_kept,
        "0" if write.live is None else "1",
        ",".join(sorted(write.live or ())),
        ";".join(_dropped(write.drops)),
        JOURNAL_VERSIONS,
        JOURNAL_SECONDS * 1000,
        write.base_mark,
        write.mark,
    )


def _dropped(drops: Sequence[Place]) -> list[str]:
    """``generation:number,number`` for each generation."""
    groups = itertools.groupby(sorted(drops), key=lambda place: place[0])
    return [f"{generation}:{','.join(str(number) for _, number in group)}" for generation, group in groups]


def _outcome(answer: Answer) -> Outcome:
    verdict = Verdict(answer.word)
    if verdict is Verdict.OK:
        return Outcome(verdict=verdict)
    journal = _journal_row(answer.values[6]) if len(answer.values) > 6 else None
    return Outcome(verdict=verdict, head=head_row(answer.values), journal=journal)


def _version_rows(values: Sequence[Reply]) -> dict[int, VersionRow]:
    triples = zip(values[::3], values[1::3], values[2::3], strict=True)
    return {
        _number(version): VersionRow(about=_about(about), manifest=as_bytes(manifest))
        for version, about, manifest in triples
    }


def _journal_row(reply: Reply) -> JournalRow:
    version, digest, result = _fields(reply, 3)
    if not result:
        raise CorruptMemory("the journal's row of this request is damaged; its outcome cannot be told")
    return JournalRow(version=_number(version), digest=digest.decode(errors="replace"), result=result)


def _about(reply: Reply) -> bytes:
    return _fields(reply, 3)[2]


def _fields(reply: Reply, count: int) -> list[bytes]:
    """A stored row's fields. A damaged row gives empty ones, which no seal fits."""
    fields = as_bytes(reply).split(b"|", count - 1)
    return fields if len(fields) == count else [b"0"] + [b""] * (count - 1)


def _number(reply: Reply) -> int:
    try:
        return int(as_bytes(reply))
    except ValueError as error:
        raise CorruptMemory(f"{reply!r} stands where a version should; roll back to an earlier version") from error


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
