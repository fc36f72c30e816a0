"""One Generate call: its sequences on the engine's thread, its events on the event loop."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator

from hope_serve.api import Delta, Ended, GenerateEvent, GenerateRequest, Timings, TokenLogprob, Usage
from hope_serve.engine.draws import row_key
from hope_serve.engine.loop import EngineLoop
from hope_serve.engine.sequence import Purpose, Sampled, Sequence, Start
from hope_serve.engine.text_stream import Piece, TextStream
from hope_serve.tokenizer import Tokenizer


class Choice:
    """Listens to one sequence and turns its tokens into events.

    Text is made on the engine's thread, since a stop string must end the sequence before its next step.
    """

    def __init__(self, index: int, text: TextStream, events: asyncio.Queue[GenerateEvent | BaseException]) -> None:
        self._index, self._text, self._events = index, text, events
        self._loop = asyncio.get_running_loop()

    def on_token(self, sequence: Sequence, sampled: Sampled) -> bool:
        """Emit what the token makes certain; True when a stop string has matched."""
        if sampled.token not in sequence.stop_ids:
            self._send_piece(sequence, self._text.push(sampled))
        return bool(self._text.matched_stop)

    def on_end(self, sequence: Sequence) -> None:
        """Emit what was held back, and the end or the error."""
        if sequence.error is not None:
            self._send(sequence.error)
            return
        if sequence.finish_reason is None:
            return
        if not self._text.matched_stop:
            self._send_piece(sequence, self._text.finish())
        self._send(
            Ended(
                choice=self._index,
                finish_reason=sequence.finish_reason,
                matched_stop=self._text.matched_stop,
                usage=Usage(prompt_tokens=sequence.num_prompt, completion_tokens=len(sequence.sampled)),
                timings=timings(sequence),
            )
        )

    def _send_piece(self, sequence: Sequence, piece: Piece) -> None:
        if not (piece.text or piece.tokens):
            return
        logprobs: tuple[TokenLogprob, ...] = ()
        if sequence.sampling.logprobs is not None:
            logprobs = tuple(TokenLogprob(token=s.token, logprob=s.logprob, top=s.top) for s in piece.tokens)
        ids = tuple(sampled.token for sampled in piece.tokens)
        self._send(Delta(choice=self._index, text=piece.text, token_ids=ids, logprobs=logprobs))

    def _send(self, event: GenerateEvent | BaseException) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)


class Generation:
    """The choices of one request, running.

    Args:
        start: what every choice begins with.
        keeps_state: the one choice's final state is wanted, for a conversation.
    """

    def __init__(
        self,
        request: GenerateRequest,
        loop: EngineLoop,
        tokenizer: Tokenizer,
        start: Start,
        *,
        prompt: list[int],
        keeps_state: bool = False,
    ) -> None:
        self._events: asyncio.Queue[GenerateEvent | BaseException] = asyncio.Queue()
        self._loop = loop
        self.sequences = [
            _sequence(request, index, tokenizer, start, prompt, self._events, keeps_state=keeps_state)
            for index in range(request.sampling.n)
        ]
        self.sequences[0].forks = self.sequences[1:]

    async def events(self) -> AsyncGenerator[GenerateEvent]:
        """Every choice's events until all have ended. Leaving early cancels the sequences within a step."""
        self._loop.submit(self.sequences[0])
        left = len(self.sequences)
        try:
            while left:
                event = await self._events.get()
                if isinstance(event, BaseException):
                    raise event
                yield event
                left -= isinstance(event, Ended)
        finally:
            if left:
                for sequence in self.sequences:
                    sequence.cancelled = True
                self._loop.wake()


def timings(sequence: Sequence, *, restore_seconds: float = 0.0) -> Timings:
    """Seconds in each stage, from a finished sequence's clock."""
    prefilled = sequence.prefilled_at or sequence.finished_at
    return Timings(
        queue_seconds=max(0.0, sequence.started_at - sequence.submitted_at),
        restore_seconds=restore_seconds,
        prefill_seconds=max(0.0, prefilled - sequence.started_at),
        decode_seconds=max(0.0, sequence.finished_at - prefilled),
    )


def _sequence(
    request: GenerateRequest,
    index: int,
    tokenizer: Tokenizer,
    start: Start,
    prompt: list[int],
    events: asyncio.Queue[GenerateEvent | BaseException],
    *,
    keeps_state: bool,
) -> Sequence:
    sampling = request.sampling
    stop_ids = frozenset(sampling.stop_token_ids) | (frozenset() if sampling.ignore_eos else {tokenizer.end})
    seed = secrets.randbits(64) if sampling.seed is None else sampling.seed
    return Sequence(
        purpose=Purpose.GENERATE,
        tokens=list(prompt),
        listener=Choice(index, TextStream(tokenizer, sampling.stop, min_tokens=sampling.min_tokens), events),
        start=start,
        sampling=sampling,
        draw_key=row_key(seed, index),
        stop_ids=stop_ids,
        priority=request.priority,
        deadline=request.deadline,
        keeps_state=keeps_state,
    )
