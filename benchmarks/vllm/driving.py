"""What is asked of every engine alike: many users who draw at once, a stream of users, one who returns."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

from benchmarks.report import Figure
from benchmarks.vllm.models import SHAPES

BATCHES = (1, 64, 256)
HISTORIES = (128, 2048, 8192)
DRAWN = 48
"""Tokens of everybody's window."""
CELL_SECONDS = 45.0
STEP_TOKENS = 8192
CONTEXT = 9216
IN_FLIGHT = 64


class Driven(Protocol):
    """An engine that is stepped by hand."""

    name: str
    capacity: int
    """Tokens that its cache holds."""
    slots: int
    context: int
    """Sequences at a time, and tokens of each, at most."""
    reads_beside: bool
    """Whether prompts are read beside the drawing of others, so that who began first draws on until the last begins."""
    ended: set[str]
    """Sequences that have ended since somebody looked."""

    @property
    def idle(self) -> bool:
        """Whether every sequence has ended."""
        ...

    def add(self, prompt: list[int], max_tokens: int, user: int) -> str:
        """Begin a sequence of a user; returns its name."""
        ...

    def step(self) -> dict[str, int]:
        """Tokens that each sequence has got by this step; none where every sequence has ended."""
        ...

    def stop(self) -> None:
        """End every sequence."""
        ...

    def close(self) -> None:
        """End the engine, so that its thread is not in the middle of a step when the process ends."""
        ...


def together(engine: Driven, name: str, batches: tuple[int, ...], histories: tuple[int, ...]) -> Iterator[Figure]:
    """Tokens a second of B users who all draw, behind histories of one length."""
    for history in histories:
        for count in batches:
            label = f"{engine.name}, {name}: {count} users, history {history}"
            length = history + _drawn(engine, count, history)
            if count > engine.slots or length > engine.context or count * length > engine.capacity:
                print(f"{label}: does not fit {engine.slots} slots, {engine.capacity} tokens in all", flush=True)
                continue
            yield from _window(engine, label, name, count, history)


def _drawn(engine: Driven, count: int, history: int) -> int:
    """Tokens that each draws at most, those before everybody's prompt was read included."""
    if engine.reads_beside and count > 1:
        return max(DRAWN, engine.context - history)
    return count * history // STEP_TOKENS + 2 + DRAWN


def _window(engine: Driven, label: str, name: str, count: int, history: int) -> Iterator[Figure]:
    """The median step among those in which everybody got a token."""
    began = time.perf_counter()
    names = {engine.add(_prompt(name, history, user), _drawn(engine, count, history), user) for user in range(count)}
    steps, first = [], 0.0
    while len(steps) < DRAWN - 8 and time.perf_counter() - began < CELL_SECONDS:
        before = time.perf_counter()
        got = engine.step()
        now = time.perf_counter()
        if not got and engine.idle:
            break
        if got.keys() == names:
            first = first or now - began
            steps.append((now - before, sum(got.values())))
    engine.stop()
    if len(steps) < 8:
        print(f"{label}: not all drew together within {CELL_SECONDS:g} s and {engine.context} tokens", flush=True)
        return
    rates = sorted(tokens / seconds for seconds, tokens in steps[2:])
    yield Figure(label, rates[len(rates) // 2], "tokens/s")
    if count > 1 or history > 128:
        yield Figure(f"{label}: prompts read", count * history / first, "tokens/s")


def stream(engine: Driven, name: str, users: int, *, requests: int = 1000) -> Figure:
    """Requests of ``users`` in turn, 64 in flight, 128 tokens in and 32 out each."""
    left, open_, began, tokens = iter(range(requests)), set[str](), time.perf_counter(), 0
    while True:
        while len(open_) < IN_FLIGHT and (n := next(left, None)) is not None:
            open_.add(engine.add(_prompt(name, 128, n), 32, n % users))
        if not open_:
            break
        got = engine.step()
        tokens += sum(got.values())
        open_ -= engine.ended
        engine.ended.clear()
    seconds = time.perf_counter() - began
    engine.stop()  # nothing of it is left to be heard by who measures next
    return Figure(f"{engine.name}, {name}: stream of {users} users", tokens / seconds, "tokens/s")


def returning(engine: Driven, name: str, history: int) -> Figure:
    """Milliseconds to the first token of somebody who comes back with 32 new tokens and ``history`` to be read."""
    times = []
    for user in range(9):
        began = time.perf_counter()
        engine.add(_prompt(name, history + 32, user), 1, user)
        while not engine.step():
            pass
        times.append(time.perf_counter() - began)
        engine.stop()
    what = f"with {history} tokens to be read again" if history else "with nothing to be read again"
    return Figure(f"{engine.name}, {name}: first token of a returning user {what}", sorted(times)[4] * 1e3, "ms")


def _prompt(name: str, length: int, user: int) -> list[int]:
    vocab = SHAPES[name].vocab
    return [3 + (user * 7919 + i * 31) % (vocab - 3) for i in range(length)]
