"""What people get from a running server: recall, retention, correction and privacy, measured through its RPCs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TypeVar
from uuid import uuid4

from hope_serve.api import SamplingParams
from hope_serve.client import AsyncHopeClient, Message
from hope_serve.training.personas import Fact, PersonaFactory

T = TypeVar("T")

ANSWER = SamplingParams(temperature=0.0, max_tokens=32)


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody with a memory on the server."""

    user_id: str
    facts: list[Fact] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A question put in a fresh context, and what came back."""

    fact: Fact
    text: str

    @property
    def right(self) -> bool:
        """Whether the value is in the text, as it was told."""
        return self.fact.value in self.text


class Study:
    """Teaches people and asks them.

    Args:
        concurrency: calls under way at a time.
        seed: of the order and the unrelated text.
    """

    def __init__(
        self, client: AsyncHopeClient, people: PersonaFactory, *, concurrency: int = 16, seed: int = 0
    ) -> None:
        self._client, self._people = client, people
        self._slots = asyncio.Semaphore(concurrency)
        self._random = random.Random(seed)  # noqa: S311 - a reproducible draw, nothing secret
        self._prefix = uuid4().hex[:8]
        self._count = 0
        self._passages = files("hope_serve.training").joinpath("unrelated.txt").read_text().split("\n\n")

    def person(self, facts: list[Fact] | None = None) -> Person:
        """Somebody new to the server."""
        self._count += 1
        return Person(user_id=f"study-{self._prefix}-{self._count}", facts=facts or [])

    async def teach(self, person: Person, facts: list[Fact]) -> None:
        """One Adapt with these facts, in the generator's wording."""
        await self._client.adapt(person.user_id, self._people.monologue(facts))

    async def distract(self, person: Person, tokens: int) -> None:
        """One Adapt with about ``tokens`` tokens of text about something else."""
        passages = self._random.sample(self._passages, len(self._passages))
        ids = await self._client.tokenize(" ".join(passages))
        await self._client.adapt(person.user_id, await self._client.detokenize(ids[:tokens]))

    async def ask(self, fact: Fact, user_id: str = "") -> Answer:
        """The question in a context of its own; no user is the plain model."""
        reply = await self._client.generate(
            [Message(role="user", text=fact.question)], user_id=user_id, sampling=ANSWER
        )
        return Answer(fact=fact, text=reply.choices[0].text)

    async def ask_all(self, pairs: Iterable[tuple[Fact, str]]) -> list[Answer]:
        """Many questions, (fact, user id), some at a time."""
        return await self.gather(self.ask(fact, user_id) for fact, user_id in pairs)

    async def gather(self, calls: Iterable[Awaitable[T]]) -> list[T]:
        """Await calls in order, as many at a time as the study may."""

        async def one(call: Awaitable[T]) -> T:
            async with self._slots:
                return await call

        return list(await asyncio.gather(*(one(call) for call in calls)))

    async def recall(self, users: int, facts: int) -> dict[str, float]:
        """Shares of right answers: with one's memory, without any, and to another person's facts."""
        persons = [self.person(self._people.facts(facts)) for _ in range(users)]
        await self.gather(self.teach(person, person.facts) for person in persons)
        own = [(fact, person.user_id) for person in persons for fact in person.facts]
        neighbours = [*persons[1:], persons[0]]
        others = [(f, n.user_id) for p, n in zip(persons, neighbours, strict=True) for f in p.facts]
        return {
            "recall_with_memory": share(await self.ask_all(own)),
            "recall_without_memory": share(await self.ask_all((fact, "") for fact, _ in own)),
            "recall_of_others_facts": share(await self.ask_all(others)),
        }

    async def retention(self, users: int, *, facts: int = 4, lessons: int = 3, noise: int = 500) -> dict[str, float]:
        """Shares of right answers after several Adapts with unrelated text after each; the last corrects a fact."""
        results = await self.gather(self._remember(facts, lessons, noise) for _ in range(users))
        return {
            "recall_of_first_facts": share([answer for oldest, _ in results for answer in oldest]),
            "recall_of_corrected_fact": share([corrected for _, corrected in results]),
        }

    async def _remember(self, facts: int, lessons: int, noise: int) -> tuple[list[Answer], Answer]:
        person, told = self.person(), [self._people.facts(facts)]
        for _ in range(lessons - 1):
            known = frozenset(fact.key for lesson in told for fact in lesson)
            told.append(self._people.facts(facts, avoid=known))
        told[-1][0] = self._people.corrected(told[0][0])
        for lesson in told:
            await self.teach(person, lesson)
            await self.distract(person, noise)
        oldest = [await self.ask(fact, person.user_id) for fact in told[0][1:]]
        return oldest, await self.ask(told[-1][0], person.user_id)


def share(answers: list[Answer]) -> float:
    """Share of right answers."""
    return sum(answer.right for answer in answers) / len(answers)
