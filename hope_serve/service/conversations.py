"""Conversations that outlive a call: a sequence's constant-size state, kept at the end of every turn."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from hope_serve.api import GenerateRequest, MemoryChoice, Owner
from hope_serve.api.engine import Carried
from hope_serve.errors import VersionConflict
from hope_serve.memory.store import StoredSession
from hope_serve.service.warm import Memories


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Where a conversation stands before a turn.

    Attributes:
        carried: None before the first turn.
        memory_version: the version the conversation reads; 0 is the plain model.
        base_version: the store's head when the conversation began.
    """

    owner: Owner
    session_id: str
    turn: int = 0
    carried: Carried[Any] | None = None
    memory_version: int = 0
    base_version: int = 0

    def choice(self, asked: MemoryChoice) -> MemoryChoice:
        """Which memory the turn reads: the one the conversation began with, unless it is asked to move."""
        if not self.turn or asked.move_session or asked.exact_version is not None:
            return asked
        return replace(asked, min_version=None, exact_version=self.memory_version or None)

    @property
    def num_behind(self) -> int:
        """Tokens of the earlier turns."""
        return self.carried.consumed + (self.carried.unfed is not None) if self.carried else 0

    @property
    def reads_plain_model(self) -> bool:
        """Whether the conversation began without a memory and stays so."""
        return self.turn > 0 and self.memory_version == 0


class Conversations:
    """Loads and keeps conversations; one turn at a time each."""

    def __init__(self, memories: Memories, fingerprint: str, *, ttl_seconds: float) -> None:
        self._memories, self._fingerprint, self._ttl = memories, fingerprint, ttl_seconds
        self._active: set[tuple[Owner, str]] = set()

    async def begin(self, request: GenerateRequest, owner: Owner) -> Conversation:
        """Where the conversation stands; ``leave`` must follow.

        Raises:
            VersionConflict: another turn of it is under way.
            FailedPrecondition, CorruptMemory: as the store says.
        """
        key = (owner, request.session_id)
        if key in self._active:
            raise VersionConflict(
                f"session_id {request.session_id!r} has another turn under way; wait for it to end",
                head=0,
                reason="SESSION_CONFLICT",
            )
        self._active.add(key)
        try:
            stored = await self._memories.store.load_session(owner, request.session_id, fingerprint=self._fingerprint)
            if stored is None:
                head = await self._memories.store.head(owner)
                return Conversation(owner=owner, session_id=request.session_id, base_version=head.version)
            return await asyncio.to_thread(self._restored, owner, request.session_id, stored)
        except BaseException:
            self._active.discard(key)
            raise

    async def finish(self, conversation: Conversation, carried: Carried[Any], memory_version: int) -> None:
        """Keep the state at the end of a turn.

        Raises:
            VersionConflict: another server finished a turn meanwhile.
        """
        counters = {"consumed": carried.consumed, "memory_version": memory_version}
        if carried.unfed is not None:
            counters["unfed"] = carried.unfed
        codec = self._memories.codec
        snapshot = await asyncio.to_thread(codec.of_session, carried.state, counters)
        session = StoredSession(turn=conversation.turn + 1, base_version=conversation.base_version, snapshot=snapshot)
        await self._memories.store.save_session(
            conversation.owner, conversation.session_id, session, ttl_seconds=self._ttl
        )

    def leave(self, conversation: Conversation) -> None:
        """The turn is over, one way or another."""
        self._active.discard((conversation.owner, conversation.session_id))

    def _restored(self, owner: Owner, session_id: str, stored: StoredSession) -> Conversation:
        counters = stored.snapshot.counters
        return Conversation(
            owner=owner,
            session_id=session_id,
            turn=stored.turn,
            carried=Carried(
                state=self._memories.codec.session(stored.snapshot),
                consumed=int(counters["consumed"]),
                unfed=int(counters["unfed"]) if "unfed" in counters else None,
            ),
            memory_version=int(counters["memory_version"]),
            base_version=stored.base_version,
        )
