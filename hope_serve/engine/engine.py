"""The engine's face to the event loop: generate, adapt, score, and the life of the thread behind them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, suppress

from hope_serve.api import (
    AdaptRequest,
    AdaptResult,
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
)
from hope_serve.config import EngineConfig
from hope_serve.engine.adaptation import Adaptation
from hope_serve.engine.adapter import Lesson
from hope_serve.engine.conversations import Conversation, Conversations
from hope_serve.engine.copies import Copies
from hope_serve.engine.generation import Generation
from hope_serve.engine.loop import EngineLoop
from hope_serve.engine.memories import Memories, Warm
from hope_serve.engine.pending import Pending
from hope_serve.engine.runner import Runner
from hope_serve.engine.scheduler import Scheduler
from hope_serve.engine.scoring import Scoring
from hope_serve.engine.sequence import Purpose, Sequence, Start
from hope_serve.engine.slots import SlotPool
from hope_serve.engine.tensors import TensorCodec
from hope_serve.engine.watch import Watch
from hope_serve.errors import InvalidRequest, Unavailable
from hope_serve.memory.store import MemoryStore
from hope_serve.metrics import Metrics
from hope_serve.model.checkpoint import Checkpoint
from hope_serve.tokenizer import Tokenizer


class Engine:
    """Batches everybody's requests on one device.

    Args:
        checkpoint: the model to serve.
        store: where memories rest; open, and closed by whoever opened it.
    """

    def __init__(self, checkpoint: Checkpoint, store: MemoryStore, config: EngineConfig, metrics: Metrics) -> None:
        model = checkpoint.model
        self._config, self._metrics, self._model = config, metrics, model
        self._tokenizer = Tokenizer.load(checkpoint.tokenizer_path)
        codec = TensorCodec(model, checkpoint.fingerprint)
        self.info = _model_info(checkpoint, config, codec)
        self.memories = Memories(model, checkpoint.fingerprint, store, codec, metrics, warm_bytes=config.max_warm_bytes)
        self._conversations = Conversations(
            self.memories, checkpoint.fingerprint, ttl_seconds=config.session_ttl_seconds
        )
        slots = SlotPool(model, config.max_slots)
        align = math.lcm(*model.config.titans.rule().chunk_sizes) if config.deterministic else 0
        scheduler = Scheduler(
            max_step_tokens=config.max_batch_tokens, max_queue_tokens=config.max_queue_tokens, align=align
        )
        runner = Runner(model, slots, deterministic=config.deterministic)
        self._loop = EngineLoop(scheduler, slots, runner, metrics)
        self._scoring = Scoring(memories=self.memories, loop=self._loop)
        self.copies = Copies(memories=self.memories, fingerprint=checkpoint.fingerprint, metrics=metrics)
        self._adaptation = Adaptation(model=model, memories=self.memories, metrics=metrics, run=self._learn)
        self._in_flight = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._draining = False
        self._ended = asyncio.Event()
        metrics.memory_slots().set(config.max_slots)

    async def start(self) -> None:
        """Start the engine's thread."""
        loop = asyncio.get_running_loop()
        self._loop.start(on_end=lambda: loop.call_soon_threadsafe(self._ended.set))

    async def drain(self, seconds: float) -> None:
        """Refuse new work and let what is under way finish, for at most ``seconds``."""
        self._draining = True
        with suppress(TimeoutError):
            await asyncio.wait_for(self._quiet.wait(), seconds)

    async def close(self) -> None:
        """Stop the thread after its current step."""
        self._draining = True
        await self.memories.close()
        await asyncio.to_thread(self._loop.stop)

    @property
    def ready(self) -> bool:
        """Whether new work is taken."""
        return not self._draining and self.failure is None

    @property
    def failure(self) -> BaseException | None:
        """What ended the engine's thread before its time; nothing is served any more, and a new process is needed."""
        return self._loop.failure

    async def ended(self) -> None:
        """Returns when the engine's thread has ended, one way or another."""
        await self._ended.wait()

    def seconds_since_step(self) -> float:
        """Seconds since the engine's thread last came round; it does so while idle, too."""
        return self._loop.seconds_since_step

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent]:
        """Started, then deltas, and one Ended for each choice.

        Raises:
            InvalidRequest: a field is not allowed for this model.
            NotFound, FailedPrecondition, CorruptMemory: the memory or session asked for.
            Exhausted, DeadlineExceeded, Unavailable: it cannot be served now.
        """
        self._check_generate(request)
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
        self._check_tokens("tokens", request.tokens, least=2, most=self.info.max_adapt_tokens)
        for level in request.options.levels:
            if not 0 <= level < len(self.info.level_chunk_sizes):
                raise InvalidRequest(
                    "options.levels",
                    f"{level} is not an online level; the model has 0 to {len(self.info.level_chunk_sizes) - 1}",
                )
        with self._counted():
            return await self._adaptation.adapt(request)

    async def score(self, request: ScoreRequest) -> tuple[ScoreResult, ...]:
        """The log-likelihood of every continuation after the prompt.

        Raises:
            InvalidRequest: a field is not allowed for this model.
        """
        await asyncio.to_thread(self._check_score, request)  # up to 256 texts
        with self._counted():
            return await self._scoring.score(request)

    async def evaluate(self, request: EvaluateRequest) -> tuple[Evaluation, ...]:
        """The probes' log-likelihoods by the plain model, then by each version asked for.

        Raises:
            InvalidRequest: a field is not allowed for this model.
            NotFound, FailedPrecondition, CorruptMemory: a version asked for.
        """
        await asyncio.to_thread(self._check_evaluate, request)  # up to 256 texts
        with self._counted():
            return await self._scoring.evaluate(request)

    async def _generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent]:
        began = time.monotonic()
        warm = await self.memories.choose(request.owner, request.memory) if request.owner else None
        start = Start(deltas=warm.deltas if warm else None)
        generation = Generation(request, self._loop, self._tokenizer, start, prompt=list(request.prompt))
        watch = Watch(self._metrics, tier=warm.tier if warm else "none", began=began)
        yield Started(memory_version=warm.version if warm else 0)
        async with aclosing(generation.events()) as events:
            async for event in events:
                yield watch.seen(event)

    async def _converse(self, request: GenerateRequest, owner: Owner) -> AsyncGenerator[GenerateEvent]:
        """One turn of a conversation; its state is kept before the end is announced."""
        began = time.monotonic()
        conversation = await self._conversations.begin(request, owner)
        try:
            warm = await self._conversation_memory(conversation, request)
            version = warm.version if warm else 0
            start = Start(
                state=conversation.state, consumed=conversation.consumed, deltas=warm.deltas if warm else None
            )
            unfed = [] if conversation.unfed is None else [conversation.unfed]
            generation = Generation(
                request, self._loop, self._tokenizer, start, prompt=[*unfed, *request.prompt], keeps_state=True
            )
            watch = Watch(self._metrics, tier=warm.tier if warm else "none", began=began)
            outcome = SessionOutcome.RESUMED if conversation.turn else SessionOutcome.FRESH
            yield Started(memory_version=version, session=outcome)
            async with aclosing(generation.events()) as events:
                async for event in events:
                    if isinstance(event, Ended):
                        await self._conversations.finish(conversation, generation.sequences[0], version)
                    yield watch.seen(event)
        finally:
            self._conversations.leave(conversation)

    async def _conversation_memory(self, conversation: Conversation, request: GenerateRequest) -> Warm | None:
        asked = request.memory
        if conversation.reads_plain_model and not asked.move_session and asked.exact_version is None:
            return None
        return await self.memories.choose(conversation.owner, conversation.choice(asked))

    async def _learn(self, lesson: Lesson, request: AdaptRequest) -> Sequence:
        pending = Pending()
        sequence = Sequence(
            purpose=Purpose.LEARN, tokens=[], listener=pending, lesson=lesson, deadline=request.deadline
        )
        return await pending.finished(sequence, self._loop)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Counts a request in and out; refuses it when the engine drains or has failed."""
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

    def _check_generate(self, request: GenerateRequest) -> None:
        most = self.info.max_prompt_tokens
        self._check_tokens("prompt", request.prompt, least=0 if request.session_id else 1, most=most)
        self._check_ids("sampling.stop_token_ids", request.sampling.stop_token_ids)
        self._check_ids("sampling.logit_bias", tuple(token for token, _ in request.sampling.logit_bias))
        if request.sampling.n > self._config.max_slots:
            raise InvalidRequest(
                "sampling.n",
                f"{request.sampling.n} choices need more than the {self._config.max_slots} slots; ask for fewer",
            )
        if request.session_id and request.owner is None:
            raise InvalidRequest("session_id", "a conversation needs a user_id; set it, or leave session_id out")
        if request.session_id and request.sampling.n != 1:
            raise InvalidRequest("sampling.n", f"{request.sampling.n} choices cannot continue one session; set n to 1")

    def _check_score(self, request: ScoreRequest) -> None:
        self._check_tokens("prompt", request.prompt, least=1, most=self.info.max_prompt_tokens)
        most = self.info.max_prompt_tokens - len(request.prompt)
        for i, continuation in enumerate(request.continuations):
            self._check_tokens(f"continuations[{i}]", continuation, least=1, most=most)

    def _check_evaluate(self, request: EvaluateRequest) -> None:
        for i, probe in enumerate(request.probes):
            self._check_tokens(f"probes[{i}].prompt", probe.prompt, least=1, most=self.info.max_prompt_tokens)
            most = self.info.max_prompt_tokens - len(probe.prompt)
            self._check_tokens(f"probes[{i}].continuation", probe.continuation, least=1, most=most)

    def _check_tokens(self, field: str, tokens: tuple[int, ...], *, least: int, most: int) -> None:
        if len(tokens) < least:
            raise InvalidRequest(field, f"{len(tokens)} tokens are fewer than {least}; send more")
        if len(tokens) > most:
            raise InvalidRequest(
                field, f"{len(tokens)} tokens are more than the limit of {most}; send less", reason="TOO_LONG"
            )
        self._check_ids(field, tokens)

    def _check_ids(self, field: str, tokens: tuple[int, ...]) -> None:
        size = self.info.vocab_size
        if not tokens or (min(tokens) >= 0 and max(tokens) < size):
            return
        token = next(token for token in tokens if not 0 <= token < size)
        raise InvalidRequest(field, f"token id {token} is outside the vocabulary [0, {size}); use its tokenizer")


def _model_info(checkpoint: Checkpoint, config: EngineConfig, codec: TensorCodec) -> ModelInfo:
    model = checkpoint.config
    return ModelInfo(
        name=model.name,
        fingerprint=checkpoint.fingerprint,
        vocab_size=model.vocab_size,
        hidden_size=model.hidden_size,
        num_layers=model.num_layers,
        num_heads=model.titans.num_heads,
        num_parameters=sum(p.numel() for p in checkpoint.model.parameters()),
        max_prompt_tokens=config.max_prompt_tokens,
        max_adapt_tokens=config.max_adapt_tokens,
        level_chunk_sizes=tuple(model.levels[i].chunk_size for i in model.online_levels),
        memory_bytes=codec.memory_bytes,
        dtype="float32",
        device=str(checkpoint.model.embedding.device),
        deterministic=config.deterministic,
    )
