"""AdaptStream from the first part to the one commit: learned while it arrives, written when all of it is there."""

from __future__ import annotations

import asyncio
import hashlib
import time
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from hope_serve.api import AdaptOptions, AdaptResult, AdaptStreamRequest, AdaptStreamResult, StreamedPart
from hope_serve.api.engine import Engine, LearnTask, Taught
from hope_serve.errors import Exhausted, FailedPrecondition, InvalidRequest, RequestIdReused
from hope_serve.memory.store import Head
from hope_serve.service.commits import Claim, Commits, check_expected, erased_meanwhile, skip_reason
from hope_serve.service.unfinished import Progress
from hope_serve.service.warm import Warm

LEAST_NORM = 1e-12
"""What is left of a bound on the update when parts have used it up; 0 would be no bound."""

Around = Callable[[int], AbstractAsyncContextManager[None]]
"""Entered while a part of so many tokens is learned for the first time."""


@dataclass(eq=False, kw_only=True)
class Received:
    """The parts so far. They are kept, 4 bytes a token: if another writer is first, all are learned again."""

    tokens: list[array[int]] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    num_tokens: int = 0

    def add(self, part: StreamedPart) -> None:
        """One more."""
        self.tokens.append(array("i", part.tokens))
        self.digests.append(part.digest)
        self.num_tokens += len(part.tokens)


@dataclass(eq=False, kw_only=True)
class StreamedAdaptation:
    """Carries out streams.

    Args:
        max_tokens: of all parts of one stream.
        max_streams: under way at a time.
    """

    engine: Engine[Any, Any, Any]
    commits: Commits
    max_tokens: int
    max_streams: int
    _num_open: int = 0

    async def adapt(
        self, request: AdaptStreamRequest, parts: AsyncGenerator[StreamedPart], around: Around
    ) -> AdaptStreamResult:
        """Learn a history exactly once; each part as a document of its own, on top of the parts before it.

        Raises:
            InvalidRequest: what a part brings is refused, and with it the whole.
            RequestIdReused, VersionConflict, FailedPrecondition, DeadlineExceeded, Exhausted, Unavailable,
                CorruptMemory: as ``Adaptation.adapt``; nothing was written.
        """
        began = time.monotonic()
        with self._counted():
            done = await self.commits.in_time(request.deadline, self._adapt(request, parts, around))
        self.commits.observe(request.owner, request.options.mode, done.result, time.monotonic() - began)
        return done

    async def _adapt(
        self, request: AdaptStreamRequest, parts: AsyncGenerator[StreamedPart], around: Around
    ) -> AdaptStreamResult:
        memories, received = self.commits.memories, Received()
        if request.declared_digest and (found := await self.commits.find(_claim(request, request.declared_digest))):
            return AdaptStreamResult(result=found, num_parts_resumed=0)
        known = not request.declared_digest and await self._is_known(request)
        head, base = await memories.base(request.owner)
        if not known:
            check_expected(request.expected_version, head)
        progress = self._begun(request, head, base)
        kept = memories.unfinished.find(request.owner, request.request_id, head, request.options)
        resumed = 0
        async with aclosing(_one_ahead(parts)) as ahead:
            async for part in ahead:
                self._receive(received, part)
                if known or (kept and len(received.tokens) < kept.num_parts):
                    continue
                if kept and kept.digest == part.digest:
                    progress, resumed = kept, kept.num_parts
                kept = None
                progress = await self._caught_up(request, progress, received, around)
        _check_digest(request, received)
        if not known:  # fewer parts than a broken call had learned
            progress = await self._caught_up(request, progress, received, around)
        async with memories.writing(request.owner):
            result = await self._finish(request, progress, received)
        memories.unfinished.drop(request.owner, request.request_id)
        return AdaptStreamResult(result=result, num_parts_resumed=0 if result.duplicate else resumed)

    async def _is_known(self, request: AdaptStreamRequest) -> bool:
        """Whether the id has been applied, to whatever parts."""
        try:
            return await self.commits.find(_claim(request, "")) is not None
        except RequestIdReused:
            return True

    def _receive(self, received: Received, part: StreamedPart) -> None:
        total = received.num_tokens + len(part.tokens)
        if total > self.max_tokens:
            raise InvalidRequest(
                f"parts[{len(received.tokens)}]",
                f"{total} tokens with all parts before it are more than engine.max_stream_tokens {self.max_tokens} "
                "allows; send the rest under another request_id",
                reason="INPUT_TOO_LONG",
            )
        received.add(part)

    async def _finish(self, request: AdaptStreamRequest, progress: Progress, received: Received) -> AdaptResult:
        """Write what was learned; learn all of it again for as long as other writers are first."""
        commits = self.commits
        claim = replace(_claim(request, received.digests[-1]), num_documents=len(received.tokens))
        if found := await commits.find(claim):
            return found
        while True:
            head, base = await commits.memories.base(request.owner)
            if progress.head.exists and not head.exists:
                raise erased_meanwhile()
            check_expected(request.expected_version, head)
            if not progress.stands_on(head):
                commits.metrics.commit_conflicts_total().inc()
                progress = self._begun(request, head, base)
            progress = await self._caught_up(request, progress, received)
            taught = await self._whole(progress, base)
            if reason := skip_reason(request.options, taught.metrics):
                return commits.unwritten(head, taught, reason)
            if result := await commits.commit(claim, head, base, taught):
                return result

    def _begun(self, request: AdaptStreamRequest, head: Head, base: Warm | None) -> Progress:
        learned = base.learned if base else self.commits.memories.codec.blank()
        return Progress(head=head, options=request.options, learned=learned)

    async def _caught_up(
        self, request: AdaptStreamRequest, progress: Progress, received: Received, around: Around | None = None
    ) -> Progress:
        """With every part that is there."""
        for index in range(progress.num_parts, len(received.tokens)):
            tokens = received.tokens[index]
            if around is None:
                taught = await self._teach(request, progress, tokens)
            else:
                async with around(len(tokens)):
                    taught = await self._teach(request, progress, tokens)
            progress = progress.after(taught, received.digests[index])
            self.commits.memories.unfinished.keep(request.owner, request.request_id, progress)
        return progress

    async def _teach(self, request: AdaptStreamRequest, progress: Progress, tokens: array[int]) -> Taught[Any]:
        try:
            return await self.engine.learn(
                LearnTask(
                    tokens=tuple(tokens),
                    before=progress.learned,
                    options=_options_left(request.options, progress),
                    deadline=request.deadline,
                    owner=request.owner,
                )
            )
        except FailedPrecondition as error:
            raise FailedPrecondition(
                f"parts[{progress.num_parts}]: {error}", reason=error.reason, details=error.details
            ) from error

    async def _whole(self, progress: Progress, base: Warm | None) -> Taught[Any]:
        """What all parts led to, as one lesson would have."""
        codec = self.commits.memories.codec
        norm = await asyncio.to_thread(codec.distance, progress.learned, base.learned if base else None)
        totals = progress.totals
        return Taught(learned=progress.learned, metrics=totals.metrics(norm), timings=totals.timings)

    @contextmanager
    def _counted(self) -> Any:
        if self._num_open >= self.max_streams:
            raise Exhausted(
                f"{self._num_open} streams are under way, as many as engine.max_streams allows; try again later",
                reason="CONCURRENCY",
            )
        self._num_open += 1
        try:
            yield
        finally:
            self._num_open -= 1


async def _one_ahead(parts: AsyncIterator[StreamedPart]) -> AsyncGenerator[StreamedPart]:
    """The parts; while one is being learned, the next is read and made tokens of, and no more than that."""

    async def read() -> StreamedPart | None:
        return await anext(parts, None)

    following = asyncio.create_task(read())
    try:
        while (part := await following) is not None:
            following = asyncio.create_task(read())
            yield part
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def _options_left(options: AdaptOptions, progress: Progress) -> AdaptOptions:
    """``max_update_norm`` bounds the way of all parts, and so the distance."""
    if not options.max_update_norm:
        return options
    return replace(options, max_update_norm=max(LEAST_NORM, options.max_update_norm - progress.totals.way))


def _check_digest(request: AdaptStreamRequest, received: Received) -> None:
    if not received.tokens:
        raise InvalidRequest("parts", "there is none; send at least one before the end")
    if request.declared_digest not in ("", received.digests[-1]):
        raise InvalidRequest(
            "start.payload_digest",
            f"the parts give {received.digests[-1]}, not {request.declared_digest}; nothing was written; "
            "give the digest of what is sent, or leave it out",
        )


def _claim(request: AdaptStreamRequest, contents: str) -> Claim:
    """The request, were its contents of this digest."""
    payload = msgspec.json.encode(("stream", contents, request.options, request.expected_version))
    return Claim(
        owner=request.owner,
        request_id=request.request_id,
        payload_digest=hashlib.sha256(payload).hexdigest(),
        source=request.source,
    )
