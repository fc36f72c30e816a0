"""What the server offers, on one engine and one store: generate, adapt, score, and the care of memories."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from typing import Any

from hope_serve.api import (
    AdaptRequest,
    AdaptResult,
    AdaptStreamRequest,
    AdaptStreamResult,
    Ended,
    EvaluateRequest,
    Evaluation,
    GenerateEvent,
    GenerateRequest,
    ModelInfo,
    Owner,
    ScoreRequest,
    ScoreResult,
    SessionOutcome,
    Started,
    StreamedPart,
)
from hope_serve.api.engine import Engine
from hope_serve.config import EngineConfig
from hope_serve.errors import Unavailable, within
from hope_serve.memory.store import MemoryStore
from hope_serve.metrics import Metrics
from hope_serve.service.adaptation import Adaptation
from hope_serve.service.checks import Checks
from hope_serve.service.codec import Codec
from hope_serve.service.commits import Commits
from hope_serve.service.conversations import Conversation, Conversations
from hope_serve.service.copies import Copies
from hope_serve.service.generation import Generation
from hope_serve.service.latency import Latency
from hope_serve.service.scoring import Scoring
from hope_serve.service.streamed import Around, StreamedAdaptation
from hope_serve.service.warm import Memories, Warm
from hope_serve.tokenizer import Vocabulary


@asynccontextmanager
async def _nothing_around(_num_tokens: int) -> AsyncIterator[None]:
    yield


class Service:
    """Everything behind the face, whatever the engine.

    Args:
        engine: computes; started and closed with this.
        codec: the engine's own, for what the store keeps.
        store: where memories rest; open, and closed by whoever opened it.
    """

    def __init__(
        self,
        engine: Engine[Any, Any, Any],
        codec: Codec,
        tokenizer: Vocabulary,
        store: MemoryStore,
        config: EngineConfig,
        metrics: Metrics,
    ) -> None:
        self._engine, self._tokenizer, self._metrics = engine, tokenizer, metrics
        self.info: ModelInfo = engine.info
        fingerprint = self.info.fingerprint
        self._checks = Checks(self.info, max_slots=config.max_slots)
        self.memories = Memories(fingerprint, store, codec, metrics, warm_bytes=config.max_warm_bytes)
        self.copies = Copies(memories=self.memories, fingerprint=fingerprint, metrics=metrics)
        self._conversations = Conversations(self.memories, fingerprint, ttl_seconds=config.session_ttl_seconds)
        self._scoring = Scoring(engine=engine, memories=self.memories)
        commits = Commits(memories=self.memories, metrics=metrics)
        self._adaptation = Adaptation(engine=engine, commits=commits)
        self._streamed = StreamedAdaptation(
            engine=engine, commits=commits, max_tokens=config.max_stream_tokens, max_streams=config.max_streams
        )
        self._in_flight = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._draining = False

    async def start(self) -> None:
        """Start the engine."""
        await self._engine.start()

    async def drain(self, seconds: float) -> None:
        """Refuse new work and let what is under way finish, for at most ``seconds``."""
        self._draining = True
        with suppress(TimeoutError):
            await asyncio.wait_for(self._quiet.wait(), seconds)

    async def close(self) -> None:
        """Stop the engine after its current step."""
        self._draining = True
        await self.memories.close()
        await self._engine.close()

    @property
    def ready(self) -> bool:
        """Whether new work is taken."""
        return not self._draining and self._engine.failure is None

    @property
    def failure(self) -> BaseException | None:
        """What ended the engine before its time; nothing is served any more, and a new process is needed."""
        return self._engine.failure

    async def ended(self) -> None:
        """Returns when the engine has ended, one way or another."""
        await self._engine.ended()

    def seconds_since_step(self) -> float:
        """Seconds since the engine last came round; it does so while idle, too."""
        return self._engine.seconds_since_step()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent]:
        """Started, then deltas, and one Ended for each choice.

        Raises:
            InvalidRequest: a field is not allowed for this model.
            NotFound, FailedPrecondition, CorruptMemory: the memory or session asked for.
            Exhausted, DeadlineExceeded, Unavailable: it cannot be served now.
        """
        self._checks.generate(request)
        with self._counted():
            if request.session_id and request.owner:
                events = self._converse(request, request.owner)
            else:
                events = self._generate(request)
            async with aclosing(events):
                async for event in events:
                    yield event

    async def adapt(self, request: AdaptRequest) -> AdaptResult:
        """Learn a document exactly once; see ``Adaptation.adapt`` for what is refused."""
        self._checks.adapt(request)
        with self._counted():
            return await self._adaptation.adapt(request)

    async def adapt_stream(
        self, request: AdaptStreamRequest, parts: AsyncGenerator[StreamedPart], around: Around = _nothing_around
    ) -> AdaptStreamResult:
        """Learn a history exactly once, while it arrives; see ``StreamedAdaptation.adapt`` for what is refused.

        Args:
            around: entered while a part of so many tokens is learned for the first time.
        """
        with within("start"):
            self._checks.options(request.options)
        with self._counted():
            async with aclosing(self._checks.parts(parts)) as checked:
                return await self._streamed.adapt(request, checked, around)

    async def score(self, request: ScoreRequest) -> tuple[ScoreResult, ...]:
        """The log-likelihood of every continuation after the prompt.

        Raises:
            InvalidRequest: a field is not allowed for this model.
        """
        await asyncio.to_thread(self._checks.score, request)  # up to 256 texts
        with self._counted():
            return await self._scoring.score(request)

    async def evaluate(self, request: EvaluateRequest) -> tuple[Evaluation, ...]:
        """The probes' log-likelihoods by the plain model, then by each version asked for.

        Raises:
            InvalidRequest: a field is not allowed for this model.
            NotFound, FailedPrecondition, CorruptMemory: a version asked for.
        """
        await asyncio.to_thread(self._checks.evaluate, request)  # up to 256 texts
        with self._counted():
            return await self._scoring.evaluate(request)

    async def _generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent]:
        began = time.monotonic()
        warm = await self.memories.choose(request.owner, request.memory) if request.owner else None
        generation = Generation(request, self._engine, self._tokenizer, memory=warm.reads if warm else None)
        latency = Latency(self._metrics, tier=warm.tier if warm else "none", began=began)
        yield Started(memory_version=warm.version if warm else 0)
        async with aclosing(generation.events()) as events:
            async for event in events:
                yield latency.seen(event)

    async def _converse(self, request: GenerateRequest, owner: Owner) -> AsyncGenerator[GenerateEvent]:
        """One turn of a conversation; its state is kept before the end is announced."""
        began = time.monotonic()
        conversation = await self._conversations.begin(request, owner)
        try:
            warm = await self._conversation_memory(conversation, request)
            version = warm.version if warm else 0
            if conversation.turn and request.following:
                request = replace(request, prompt=request.following)
            self._checks.context(request, behind=conversation.num_behind)
            generation = Generation(
                request,
                self._engine,
                self._tokenizer,
                memory=warm.reads if warm else None,
                carried=conversation.carried,
                keeps_state=True,
            )
            latency = Latency(self._metrics, tier=warm.tier if warm else "none", began=began)
            outcome = SessionOutcome.RESUMED if conversation.turn else SessionOutcome.FRESH
            yield Started(memory_version=version, session=outcome)
            async with aclosing(generation.events()) as events:
                async for event in events:
                    if isinstance(event, Ended) and generation.carried is not None:
                        await self._conversations.finish(conversation, generation.carried, version)
                    yield latency.seen(event)
        finally:
            self._conversations.leave(conversation)

    async def _conversation_memory(self, conversation: Conversation, request: GenerateRequest) -> Warm | None:
        asked = request.memory
        if conversation.reads_plain_model and not asked.move_session and asked.exact_version is None:
            return None
        return await self.memories.choose(conversation.owner, conversation.choice(asked))

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Counts a request in and out; refuses it when the service drains or its engine has failed."""
        if self.failure is not None:
            raise Unavailable("the engine stopped; another server can take the request", reason="ENGINE_STOPPED")
        if self._draining:
            raise Unavailable("the server is draining; use another one", reason="DRAINING")
        self._in_flight += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._quiet.set()
