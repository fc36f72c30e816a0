"""One Generate call: its sequences on the engine's thread, its events on the event loop."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator

import torch

from hope_serve.api import Delta, Ended, GenerateEvent, GenerateRequest, Timings, TokenLogprob, Usage
from hope_serve.engine.loop import EngineLoop
from hope_serve.engine.pending import as_refusal
from hope_serve.engine.sequence import Purpose, Sampled, Sequence, Start
from hope_serve.engine.text_stream import TextStream
from hope_serve.tokenizer import Tokenizer


class Choice:
    """Listens to one sequence and turns its tokens into events.

    Text is made on the engine's thread, since a stop string must end the sequence before its next step.
    """

    def __init__(self, index: int, text: TextStream, events: asyncio.Queue[GenerateEvent | BaseException]) -> None:
        self._index, self._text, self._events = index, text, events
        self._loop = asyncio.get_running_loop()

    def on_token(self, sequence: Sequence, sampled: Sampled) -> bool:
        """Emit the token; True when a stop string has matched."""
        is_stop = sampled.token in sequence.stop_ids
        text = "" if is_stop else self._text.push(sampled.token)
        logprobs: tuple[TokenLogprob, ...] = ()
        if sequence.sampling.logprobs is not None:
            logprobs = (TokenLogprob(token=sampled.token, logprob=sampled.logprob, top=sampled.top),)
        self._send(Delta(choice=self._index, text=text, token_ids=(sampled.token,), logprobs=logprobs))
        return bool(self._text.matched_stop)

    def on_end(self, sequence: Sequence) -> None:
        """Emit what was held back, and the end or the error."""
        if sequence.error is not None:
            self._send(sequence.error)
            return
        if sequence.finish_reason is None:
            return
        if not self._text.matched_stop and (rest := self._text.finish()):
            self._send(Delta(choice=self._index, text=rest, token_ids=()))
        self._send(
            Ended(
                choice=self._index,
                finish_reason=sequence.finish_reason,
                matched_stop=self._text.matched_stop,
                usage=Usage(prompt_tokens=sequence.num_prompt, completion_tokens=len(sequence.sampled)),
                timings=timings(sequence),
            )
        )

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
                    raise as_refusal(event) from event
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
    seed = secrets.randbits(63) if sampling.seed is None else sampling.seed + index
    return Sequence(
        purpose=Purpose.GENERATE,
        tokens=list(prompt),
        listener=Choice(index, TextStream(tokenizer, sampling.stop), events),
        start=start,
        sampling=sampling,
        generator=torch.Generator().manual_seed(seed % 2**63),
        stop_ids=stop_ids,
        priority=request.priority,
        deadline=request.deadline,
        keeps_state=keeps_state,
    )
