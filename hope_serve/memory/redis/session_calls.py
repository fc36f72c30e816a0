"""Conversations in Redis: staged chunks and a pointer, both with the conversation's time to live."""

from __future__ import annotations

import dataclasses

from hope_serve.errors import CorruptMemory, Unavailable
from hope_serve.memory.backend import SessionRow
from hope_serve.memory.redis import layout
from hope_serve.memory.redis.calls import Calls, as_bytes, owner_keys
from hope_serve.memory.redis.staging import fetch_session_chunks, stage_chunks


async def read_session(calls: Calls, owner: str, session: str) -> SessionRow | None:
    """See ``Backend.read_session``."""
    while row := await _pointer(calls, owner, session):
        chunks = await fetch_session_chunks(calls, owner, row.generation)
        again = await _pointer(calls, owner, session)
        if again and again.generation == row.generation:
            return dataclasses.replace(row, chunks=chunks)
    return None


async def write_session(calls: Calls, owner: str, session: str, row: SessionRow, ttl: float) -> int | None:
    """See ``Backend.write_session``."""
    if row.chunks:
        await stage_chunks(calls, layout.session_chunks(owner, row.generation), row.chunks)
    answer = await calls.write(
        "session_write",
        owner_keys(owner),
        session,
        row.turn,
        row.base_version,
        row.generation,
        row.manifest,
        len(row.chunks),
        int(ttl * 1000),
        wait=False,
    )
    if answer.word == "NOCHUNKS":
        raise Unavailable("the staged chunks are gone; send the turn again", reason="STAGED_LOST")
    if answer.word == "CONFLICT":
        return int(as_bytes(answer.values[0]))
    return -1 if answer.word == "GONE" else None


async def delete_session(calls: Calls, owner: str, session: str) -> bool:
    """See ``Backend.delete_session``."""
    answer = await calls.write("session_delete", owner_keys(owner), session)
    return answer.values[0] == 1


async def _pointer(calls: Calls, owner: str, session: str) -> SessionRow | None:
    answer = await calls.read("session", owner_keys(owner), session)
    if answer.word != "OK":
        return None
    turn, base, generation, manifest = (as_bytes(value) for value in answer.values)
    try:
        return SessionRow(
            turn=int(turn),
            base_version=int(base),
            generation=generation.decode("ascii"),
            manifest=manifest,
            chunks=(),
        )
    except ValueError as error:
        raise CorruptMemory("the conversation's record is damaged; begin a new one") from error
