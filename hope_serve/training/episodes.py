"""Episodes: what a person tells over several adaptations, what lies between, and the questions asked afterwards.

Lengths are fixed by the plan, not by the text, so that a step of one plan always has the same shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from hope_serve.api import Message
from hope_serve.tokenizer import Tokenizer
from hope_serve.training.personas import Fact, PersonaFactory

T = TypeVar("T")

QUESTION_TOKENS = 40
MAX_TRIES = 1000
UNKNOWN_ANSWER = "I do not know that yet."
# The words around a value are easy; the value, and that there is one, is what has to be remembered.
VALUE_WEIGHT, PHRASE_WEIGHT = 1.0, 0.3


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One adaptation: ``facts`` facts (0: unrelated text) over segments (tokens, does a chunk end here?)."""

    facts: int
    segments: tuple[tuple[int, bool], ...]

    @property
    def tokens(self) -> int:
        """Tokens of all segments."""
        return sum(tokens for tokens, _ in self.segments)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The stages of an episode; with ``corrects``, half of the last stages with facts correct an older one."""

    name: str
    stages: tuple[Stage, ...]
    share: float
    corrects: bool = False
    needs_noise: bool = False

    @property
    def num_facts(self) -> int:
        """Facts in all stages."""
        return sum(stage.facts for stage in self.stages)

    @property
    def tokens(self) -> int:
        """Tokens taught in all stages."""
        return sum(stage.tokens for stage in self.stages)


def _facts(count: int, *segments: tuple[int, bool]) -> Stage:
    return Stage(facts=count, segments=segments)


_EIGHT = _facts(8, (176, False))
_FOUR = _facts(4, (96, False))
_NOISE = Stage(facts=0, segments=((128, True), (128, False)))
_MUCH_NOISE = Stage(facts=0, segments=((128, True), (256, True), (128, False)))

PLANS = (
    Plan(name="one", stages=(_EIGHT,), share=0.3),
    Plan(name="cut", stages=(_facts(8, (96, True), (80, False)),), share=0.15),
    Plan(name="two", stages=(_FOUR, _FOUR), share=0.2, corrects=True),
    Plan(name="later", stages=(_FOUR, _NOISE, _FOUR), share=0.15, corrects=True, needs_noise=True),
    Plan(
        name="long",
        stages=(_FOUR, _NOISE, _FOUR, _NOISE, _FOUR, _NOISE),
        share=0.12,
        corrects=True,
        needs_noise=True,
    ),
    Plan(name="far", stages=(_FOUR, _MUCH_NOISE, _FOUR, _MUCH_NOISE), share=0.08, corrects=True, needs_noise=True),
)


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """B episodes of one plan, as tensors.

    stages: one [B, T + 1] a stage; masks: one [B, T] a stage, 1 where a target is real;
    questions: [B, Q + 1, QUESTION_TOKENS], the last about something never told;
    answer_weight: [B, Q + 1, QUESTION_TOKENS - 1], over targets; value_mask: the same, 1 on value tokens;
    age: [B, Q + 1], the stage that told it last, -1 for the unknown; corrected: [B, Q + 1].
    """

    stages: list[Tensor]
    masks: list[Tensor]
    questions: Tensor
    answer_weight: Tensor
    value_mask: Tensor
    age: Tensor
    corrected: Tensor

    def tensors(self) -> list[Tensor]:
        """Every tensor, in a fixed order."""
        return [
            *self.stages,
            *self.masks,
            self.questions,
            self.answer_weight,
            self.value_mask,
            self.age,
            self.corrected,
        ]


class EpisodeBuilder:
    """Turns people into tensors.

    Args:
        noise: gives the ids of unrelated text of a given length.
    """

    def __init__(self, tokenizer: Tokenizer, people: PersonaFactory, noise: Callable[[int], list[int]]) -> None:
        self._tokenizer, self._people, self._noise = tokenizer, people, noise
        self._draw = people.draw

    def build(self, plan: Plan, batch: int) -> Episodes:
        """``batch`` episodes of ``plan``."""
        rows = [self._episode(plan) for _ in range(batch)]
        stages, masks = [], []
        for i, stage in enumerate(plan.stages):
            tokens = [row.texts[i] for row in rows]
            stages.append(torch.tensor([_padded(t, stage.tokens + 1, self._tokenizer.pad) for t in tokens]))
            masks.append(torch.tensor([_padded([1.0] * (len(t) - 1), stage.tokens, 0.0) for t in tokens]))
        return Episodes(
            stages=stages,
            masks=masks,
            questions=torch.tensor([row.questions for row in rows]),
            answer_weight=torch.tensor([row.weights for row in rows]),
            value_mask=torch.tensor([row.values for row in rows]),
            age=torch.tensor([row.ages for row in rows]),
            corrected=torch.tensor([row.corrected for row in rows]),
        )

    def conversation(self, tokens: int) -> list[int]:
        """Facts told and asked within one context, known and unknown ones, with no memory at all."""
        ids: list[int] = []
        while len(ids) < tokens:
            facts = self._people.facts(self._draw.randint(0, 3))
            if facts:
                ids += self._tokenizer.encode_turn(Message(role="user", text=self._people.monologue(facts)))
                ids += self._tokenizer.encode_turn(Message(role="assistant", text="I will remember that."))
            asked = [*facts, self._people.unknown(facts)]
            self._draw.shuffle(asked)
            for fact in asked:
                known = fact in facts
                ids += self._question(fact, fact.answer if known else UNKNOWN_ANSWER)
        return ids[:tokens]

    def _episode(self, plan: Plan) -> _Row:
        for _ in range(MAX_TRIES):
            told: dict[str, tuple[Fact, int]] = {}
            row = _Row(texts=[], questions=[], weights=[], values=[], ages=[], corrected=[])
            correction = ""
            last = max(i for i, stage in enumerate(plan.stages) if stage.facts)
            for i, stage in enumerate(plan.stages):
                facts = self._people.facts(stage.facts, avoid=frozenset(told)) if stage.facts else []
                if i == last and plan.corrects and self._draw.random() < 0.5:
                    old = self._draw.choice([fact for fact, _ in told.values()])
                    facts[self._draw.randrange(len(facts))] = self._people.corrected(old)
                    correction = old.key
                told |= {fact.key: (fact, i) for fact in facts}
                row.texts.append(self._taught(facts) if facts else self._unrelated(stage.tokens + 1))
            if all(len(text) <= stage.tokens + 1 for text, stage in zip(row.texts, plan.stages, strict=True)):
                self._ask(row, told, correction, plan.num_facts)
                return row
        raise ValueError(
            f"in {MAX_TRIES} tries no facts fitted the tokens of plan {plan.name!r} with a vocabulary of "
            f"{self._tokenizer.vocab_size}; train a tokenizer with more tokens, on text like this"
        )

    def _taught(self, facts: list[Fact]) -> list[int]:
        text = self._people.monologue(facts)
        if self._draw.random() < 0.5:
            return self._tokenizer.encode_turn(Message(role="user", text=text))
        return [*self._tokenizer.encode_document(text), self._tokenizer.end]

    def _unrelated(self, tokens: int) -> list[int]:
        """A passage from anywhere, half of the time opened as a document."""
        text = self._noise(tokens)
        return [self._tokenizer.doc, *text[1:]] if self._draw.random() < 0.5 else text

    def _ask(self, row: _Row, told: dict[str, tuple[Fact, int]], correction: str, slots: int) -> None:
        facts = list(told.values())
        # A corrected fact takes the place of two: asking it again keeps the shape.
        facts += [facts[-1]] * (slots - len(facts))
        for fact, age in facts:
            self._ask_one(row, fact, fact.answer, age, fact.key == correction)
        unknown = self._people.unknown([fact for fact, _ in facts])
        self._ask_one(row, unknown, UNKNOWN_ANSWER, -1, corrected=False)

    def _ask_one(self, row: _Row, fact: Fact, answer: str, age: int, corrected: bool) -> None:
        prompt = self._tokenizer.encode_chat([Message(role="user", text=fact.question)])
        before, value, after = answer.partition(fact.value) if age >= 0 else (answer, "", "")
        lead, core = before.rstrip(), " " * (before.endswith(" ")) + value
        parts = [self._tokenizer.encode(part) for part in (lead, core, after)]
        ids = [*prompt, *parts[0], *parts[1], *parts[2], self._tokenizer.end]
        start, stop = len(prompt) + len(parts[0]), len(prompt) + len(parts[0]) + len(parts[1])
        weight = [0.0] * len(prompt) + [PHRASE_WEIGHT] * (len(ids) - len(prompt))
        weight[start:stop] = [VALUE_WEIGHT] * (stop - start)
        weight[len(prompt)] = VALUE_WEIGHT  # whether there is an answer at all
        values = [0.0] * start + [1.0] * (stop - start) + [0.0] * (len(ids) - stop)
        row.questions.append(_padded(ids, QUESTION_TOKENS, self._tokenizer.pad)[:QUESTION_TOKENS])
        row.weights.append(_padded(weight[1:], QUESTION_TOKENS - 1, 0.0)[: QUESTION_TOKENS - 1])
        row.values.append(_padded(values[1:], QUESTION_TOKENS - 1, 0.0)[: QUESTION_TOKENS - 1])
        row.ages.append(age)
        row.corrected.append(corrected)

    def _question(self, fact: Fact, answer: str) -> list[int]:
        return self._tokenizer.encode_chat(
            [Message(role="user", text=fact.question), Message(role="assistant", text=answer)], reply=False
        )


@dataclass(frozen=True)
class _Row:
    """One episode before it becomes tensors."""

    texts: list[list[int]]
    questions: list[list[int]]
    weights: list[list[float]]
    values: list[list[float]]
    ages: list[int]
    corrected: list[bool]


def _padded(row: list[T], length: int, fill: T) -> list[T]:
    return [*row, *[fill] * (length - len(row))]
