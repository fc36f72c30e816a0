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
from hope_serve.training.lessons.lesson import UNKNOWN_ANSWER, Adapt, Question
from hope_serve.training.lessons.people import People
from hope_serve.training.personas import Fact, PersonaFactory
from hope_serve.training.plans import Plan, Stage

T = TypeVar("T")

QUESTION_TOKENS = 40
MAX_TRIES = 1000
# The words around a value are easy; the value, and that there is one, is what has to be remembered: the first word
# decides between an answer and not knowing.
FIRST_WEIGHT, VALUE_WEIGHT, PHRASE_WEIGHT = 2.0, 1.0, 0.3
WORDS_A_TOKEN = 0.6


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """B episodes of one plan, as tensors.

    stages: one [B, T + 1] a stage; masks: one [B, T] a stage, 1 where a target is real;
    questions: [B, Q, QUESTION_TOKENS], first about what was told, then as many about what never was;
    answer_weight: [B, Q, QUESTION_TOKENS - 1], over targets; value_mask: the same, 1 on value tokens;
    age: [B, Q], the stage that told it last, -1 for the unknown; corrected: [B, Q].
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
        free: who tells in their own words; needed for the plans that ask for it.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        people: PersonaFactory,
        noise: Callable[[int], list[int]],
        free: People | None = None,
    ) -> None:
        self._tokenizer, self._people, self._noise, self._free = tokenizer, people, noise, free
        self._draw = people.draw

    def build(self, plan: Plan, batch: int) -> Episodes:
        """``batch`` episodes of ``plan``."""
        rows = [self._free_episode(plan) if plan.free else self._episode(plan) for _ in range(batch)]
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
                facts = self._people.facts(self._count(plan, stage), avoid=frozenset(told)) if stage.facts else []
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

    def _count(self, plan: Plan, stage: Stage) -> int:
        return self._draw.randint(1, stage.facts) if plan.varies else stage.facts

    def _free_episode(self, plan: Plan) -> _Row:
        """One Adapt in somebody's own words, and its questions, as many as the plan has room for."""
        if self._free is None:
            raise ValueError(f"plan {plan.name!r} needs people who tell in their own words; give EpisodeBuilder 'free'")
        stage = plan.stages[0]
        for _ in range(MAX_TRIES):
            words = int(stage.tokens * WORDS_A_TOKEN)
            lesson = self._free.episode(self._count(plan, stage), max_words=words, max_adapts=1)
            adapt = lesson.adapts[0]
            row = _Row(texts=[self._adapted(adapt)], questions=[], weights=[], values=[], ages=[], corrected=[])
            told = [q for q in lesson.questions if q.kind != "untold" and self._fits(q)]
            untold = [q for q in lesson.questions if q.kind == "untold" and self._fits(q)]
            if len(row.texts[0]) <= stage.tokens + 1 and told and untold:
                for question in (told * plan.num_facts)[: plan.num_facts]:
                    self._ask_one(row, _as_fact(question), question.answer, 0, question.kind == "corrected")
                for question in (untold * plan.num_facts)[: plan.num_facts]:
                    self._ask_one(row, _as_fact(question), question.answer, -1, corrected=False)
                return row
        raise ValueError(f"in {MAX_TRIES} tries no lesson fitted the tokens of plan {plan.name!r}")

    def _adapted(self, adapt: Adapt) -> list[int]:
        turns = [Message(role=role, text=text) for role, text in adapt.turns]
        if turns:
            return self._tokenizer.encode_chat(turns, reply=False)
        return [*self._tokenizer.encode_document(adapt.text), self._tokenizer.end]

    def _fits(self, question: Question) -> bool:
        """Whether question and answer fit, with the marks of two turns."""
        words = self._tokenizer.encode_batch([question.prompt, question.answer])
        return sum(map(len, words)) + 5 <= QUESTION_TOKENS

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
        # Where there are fewer facts than questions, they are asked again in other words: that keeps the shape.
        again = [facts[i % len(facts)] for i in range(slots - len(facts))]
        for fact, age in [*facts, *((self._people.reworded(fact), age) for fact, age in again)]:
            self._ask_one(row, fact, fact.answer, age, fact.key == correction)
        known = [fact for fact, _ in facts]
        for _ in range(slots):
            self._ask_one(row, self._people.unknown(known), UNKNOWN_ANSWER, -1, corrected=False)

    def _ask_one(self, row: _Row, fact: Fact, answer: str, age: int, corrected: bool) -> None:
        prompt = self._tokenizer.encode_chat([Message(role="user", text=fact.question)])
        before, value, after = answer.partition(fact.value) if age >= 0 else (answer, "", "")
        lead, core = before.rstrip(), " " * (before.endswith(" ")) + value
        parts = [self._tokenizer.encode(part) for part in (lead, core, after)]
        ids = [*prompt, *parts[0], *parts[1], *parts[2], self._tokenizer.end]
        start, stop = len(prompt) + len(parts[0]), len(prompt) + len(parts[0]) + len(parts[1])
        weight = [0.0] * len(prompt) + [PHRASE_WEIGHT] * (len(ids) - len(prompt))
        weight[start:stop] = [VALUE_WEIGHT] * (stop - start)
        weight[len(prompt)] = FIRST_WEIGHT
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


def _as_fact(question: Question) -> Fact:
    """A question of ``lessons`` as the generator asks; where no value has to be remembered, all of the answer does."""
    value = question.values[0] if question.values else question.answer
    return Fact(key="", value=value, statement="", question=question.prompt, answer=question.answer)


def _padded(row: list[T], length: int, fill: T) -> list[T]:
    return [*row, *[fill] * (length - len(row))]
