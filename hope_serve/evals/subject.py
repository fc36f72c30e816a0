"""What is evaluated: a running server, taught and asked through its client, always greedily and in a fresh context."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from hope_serve.api import ModelInfo
from hope_serve.client import AsyncHopeClient, Delta, Message, SamplingParams
from hope_serve.errors import HopeError, InvalidRequest, NotFound, Unavailable
from hope_serve.evals.progress import Bars

T = TypeVar("T")

MAX_ANSWER_TOKENS = 32
MARGIN_TOKENS = 2
"""Tokens that open and close a text."""


def complete(results: Iterable[T | None]) -> list[T] | None:
    """All of them, or None where one is missing: a figure is taken over everything that it names."""
    kept = list(results)
    return None if None in kept else [result for result in kept if result is not None]


def is_too_long(error: InvalidRequest) -> bool:
    """Whether a prompt was refused for its length alone."""
    return error.reason.endswith("TOO_LONG") or error.reason == "CONTEXT_FULL"


class Reply(NamedTuple):
    """An answer. text None: there is none; the prompt was longer than the model takes, or asking failed."""

    text: str | None
    prompt_tokens: int


class Subject:
    """A server and the memories that an evaluation makes on it, all of which ``forget`` erases.

    What the server refuses is noted in ``errors``, with what it was for, and what was measured stays. Once the server
    is gone, nothing more is asked.

    Args:
        concurrency: calls under way at a time.
    """

    def __init__(self, client: AsyncHopeClient, model: ModelInfo, bars: Bars, *, concurrency: int = 16) -> None:
        self.client, self.model, self.bars = client, model, bars
        self._slots = asyncio.Semaphore(concurrency)
        self._prefix = f"eval-{uuid4().hex[:8]}"
        self._users: list[str] = []
        self.errors: list[tuple[str, HopeError]] = []
        self._gone = False

    def newcomer(self) -> str:
        """The id of somebody without a memory."""
        self._users.append(f"{self._prefix}-{len(self._users) + 1}")
        return self._users[-1]

    async def taught(self, texts: Sequence[str]) -> str:
        """Somebody new whose memory has learned ``texts``, an Adapt each; longer ones in several."""
        user = self.newcomer()
        for text in texts:
            await self.teach(user, text)
        return user

    async def teach(self, user: str, text: str) -> None:
        """One text more, in as many Adapts as the server's limit wants."""
        for piece in await self._pieces(text):
            await self._learn(user, piece)

    async def ask(self, prompt: str, user: str = "", *, max_tokens: int = MAX_ANSWER_TOKENS) -> Reply:
        """The greedy reply to one message; no user is the plain model."""
        sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens)
        try:
            reply = await self.client.generate([Message(role="user", text=prompt)], user_id=user, sampling=sampling)
        except InvalidRequest as error:
            if not is_too_long(error):
                raise
            return Reply(None, 0)
        return Reply(reply.choices[0].text, reply.choices[0].ended.usage.prompt_tokens)

    async def first_token_seconds(self, prompt: str, user: str = "") -> float:
        """From the call to its first text, as a client sees it; measure alone."""
        began = time.monotonic()
        sampling = SamplingParams(temperature=0.0, max_tokens=1, min_tokens=1, ignore_eos=True)
        async for event in self.client.stream([Message(role="user", text=prompt)], user_id=user, sampling=sampling):
            if isinstance(event, Delta):
                break
        return time.monotonic() - began

    @property
    def max_tokens(self) -> int:
        """Of a prompt, what is weighed behind it included."""
        return self.model.max_prompt_tokens

    async def token_logprobs(self, prompt: Sequence[int], rest: Sequence[int], user: str = "") -> tuple[float, ...]:
        """Log-probabilities of the ids of ``rest`` after ``prompt``."""
        (scored,) = await self.client.score(list(prompt), [list(rest)], user_id=user)
        return scored.token_logprobs

    async def memory_bytes(self, user: str) -> int:
        """What the user's memory weighs in the store."""
        return (await self.client.get_memory(user)).num_bytes

    async def tried(self, stage: str, call: Coroutine[Any, Any, T]) -> T | None:
        """What the call gives; None where it was refused or the server is gone, noted in ``errors``."""
        if self._gone:
            call.close()
            return None
        try:
            return await call
        except HopeError as error:
            self.errors.append((stage, error))
            self._gone = isinstance(error, Unavailable)
            return None

    async def gather(self, stage: str, calls: Iterable[Coroutine[Any, Any, T]]) -> list[T | None]:
        """Try calls, as many at a time as may be, with a bar; results in order, None where one was refused."""
        waiting = list(calls)
        with self.bars.stage(stage, len(waiting)) as step:

            async def one(call: Coroutine[Any, Any, T]) -> T | None:
                async with self._slots:
                    result = await self.tried(stage, call)
                step()
                return result

            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(one(call)) for call in waiting]
            finally:
                for call in waiting:  # those that an error left unbegun
                    call.close()
        return [task.result() for task in tasks]

    async def forget(self) -> None:
        """Erase every memory that was made here."""
        for user in self._users:
            if self._gone:
                break
            with suppress(NotFound):  # it was never taught
                await self.client.delete_memory(user)
        self._users.clear()

    async def _learn(self, user: str, text: str) -> None:
        """One Adapt; in halves where a piece has more tokens on its own than it had within its text."""
        try:
            await self.client.adapt(user, text)
        except InvalidRequest as error:
            if not is_too_long(error) or len(text) < 2:
                raise
            for half in (text[: len(text) // 2], text[len(text) // 2 :]):
                await self._learn(user, half)

    async def _pieces(self, text: str) -> list[str]:
        most = max(1, self.model.max_adapt_tokens - MARGIN_TOKENS)
        if len(text.encode()) <= most:  # no token is shorter than a byte
            return [text]
        ids = await self.client.tokenize(text)
        if len(ids) <= most:
            return [text]
        return [await self.client.detokenize(ids[at : at + most]) for at in range(0, len(ids), most)]
