"""What held-out people get from a part: values, tellings and questions that no lesson of training had.

Every figure is a share of greedy answers in a fresh context, unless its name says nats or bits.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_serve.training.lessons.joined import Joined
from hope_serve.training.lessons.lesson import Adapt, Question
from hope_serve.training.lessons.people import Habits, Known, People
from hope_serve.training.lessons.prose import Prose
from hope_serve.training.parts.memory import Learner, plain_rows
from hope_serve.training.parts.packing import Bucket, told_tensors, tell_row
from hope_serve.training.parts.speak import replies
from hope_serve.training.parts.speech import Speech
from hope_serve.training.personas import Split

CHUNK_TOKENS = 256
NOISE_TOKENS = 220
_NEGATIONS = re.compile(r"\b(no|not|none|never|without|nothing|nobody|retired|gone|over|ended|stopped|former)\b|n't")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many people, and how much text, each figure is taken over."""

    people: int = 100
    later_people: int = 8
    noise_tokens: int = 8192
    text_characters: int = 60_000

    @classmethod
    def scaled(cls, share: float) -> Sizes:
        """Sizes for a quicker look."""
        return cls(
            people=max(2, int(100 * share)),
            later_people=max(1, int(8 * share)),
            noise_tokens=int(8192 * share),
            text_characters=max(8_000, int(60_000 * share)),
        )


@dataclass(frozen=True, kw_only=True)
class Case:
    """One person: what was told, and what is asked."""

    adapts: tuple[Adapt, ...]
    asked: tuple[Question, ...]


Judge = Callable[[Question, str], bool]


class Evaluation:
    """The table of figures of one part."""

    def __init__(self, learner: Learner, plain: Learner, speech: Speech, text: Path, *, sizes: Sizes) -> None:
        self._learner, self._plain, self._speech, self._text, self._sizes = learner, plain, speech, text, sizes
        self._draw = random.Random(7)  # noqa: S311 - a reproducible draw, nothing secret
        self._prose = Prose.load(text, "test", self._draw)
        habits = Habits(correct=0, end=0, prose=0, turns=0, noisy_words=False)
        self._people = People(Split.HELD_OUT, self._prose, self._draw, habits=habits)
        self._new = People(Split.HELD_OUT, self._prose, self._draw, habits=habits, new_relations=True)
        self._joined = Joined(Split.HELD_OUT, self._draw)

    def run(self) -> Iterator[tuple[str, float]]:
        """Every figure and its name, as they come."""
        groups = (
            self._recall,
            self._amid_prose,
            self._never_told,
            self._changed,
            self._put_together,
            self._much,
            self._later,
            self._language,
            self._second_half,
        )
        for group in groups:
            yield from group().items()

    def _recall(self) -> dict[str, float]:
        people, figures = self._sizes.people, {}
        for count in (1, 4, 8):
            cases = [self._facts(self._people, count) for _ in range(max(2, 2 * people // count))]
            figures[f"recall {count}"] = self._share(cases, holds_value)
        cases = [self._facts(self._new, 4) for _ in range(people // 2)]
        return figures | {"recall 4, new relations": self._share(cases, holds_value)}

    def _amid_prose(self) -> dict[str, float]:
        figures = {}
        for words in (60, 200):
            cases = [self._facts(self._people, 1, words=words) for _ in range(self._sizes.people)]
            figures[f"recall 1 amid {words} words"] = self._share(cases, holds_value)
        return figures

    def _facts(self, people: People, count: int, *, words: int = 0) -> Case:
        known = [people.known(r, people.value(r)) for r in people.choose(count)]
        return self._told(people, known, words=words)

    def _told(self, people: People, known: Sequence[Known], *, words: int = 0) -> Case:
        adapt = people.surround([people.tell(one.relation, one.value) for one in known], words)
        return Case(adapts=(adapt,), asked=tuple(people.question(one) for one in known))

    def _never_told(self) -> dict[str, float]:
        cases, strangers, lists = [], [], []
        for _ in range(self._sizes.people // 2):
            known = [self._people.known(r, self._people.value(r)) for r in self._people.choose(4)]
            case = self._told(self._people, known)
            told_of = [one.relation for one in known]
            unknown = tuple(self._people.unknown(told_of) for _ in range(4))
            cases.append(Case(adapts=case.adapts, asked=unknown))
            strangers.append(case)
            lists.append(known)
        moved = [Case(adapts=a.adapts, asked=b.asked) for a, b in zip(strangers, strangers[1:] + strangers[:1], strict=True)]
        others = [case for known in lists if (case := self._other_owner(known))]
        return {
            "never told, says so": self._share(cases, abstains),
            "told, but refused": self._share(strangers, abstains),
            "another owner's value": self._share(others, holds_value) if others else math.nan,
            "another owner: says so": self._share(others, abstains) if others else math.nan,
            "a stranger's facts": self._share(moved, holds_value),
        }

    def _other_owner(self, known: Sequence[Known]) -> Case | None:
        """Told of one owner, asked of another; the value that must not come stands in the question's ``values``."""
        told_of = [one.relation for one in known]
        for one in known:
            same = [r for r in self._people.relations if r.attribute == one.relation.attribute]
            free = [r for r in same if not any(r.clashes(other) for other in told_of)]
            if free:
                asked = self._people.question(self._people.known(self._draw.choice(free), one.value))
                return Case(adapts=self._told(self._people, known).adapts, asked=(asked,))
        return None

    def _changed(self) -> dict[str, float]:
        """Four facts, and one of them corrected or ended in a second adaptation."""
        corrected, ended = [], []
        for _ in range(self._sizes.people // 2):
            known = [self._people.known(r, self._people.value(r)) for r in self._people.choose(4)]
            first = self._told(self._people, known)
            for change, cases in ((self._people.correct, corrected), (self._people.end, ended)):
                changed = next((found for one in known if (found := change(one))), None)
                if changed:
                    second = self._people.surround([changed[0]], 0)
                    asked = (self._people.question(changed[1]),)
                    cases.append(Case(adapts=(*first.adapts, second), asked=asked))
        return {"corrected": self._share(corrected, holds_value), "ended": self._share(ended, says_ended)}

    def _put_together(self) -> dict[str, float]:
        figures = {}
        for name, draw in (("two hops", self._joined.hop), ("joined with knowledge", self._joined.place)):
            cases = []
            for _ in range(self._sizes.people // 2):
                pieces, questions = draw()
                if questions[0].kind == "joined":
                    cases.append(Case(adapts=(Adapt(text=" ".join(pieces)),), asked=tuple(questions)))
            figures[name] = self._share(cases, holds_value)
            told = ["\n".join(a.text for a in case.adapts) + "\n" for case in cases]
            figures[f"{name}, facts in the prompt"] = self._share_in_prompt(cases, told)
        return figures

    def _much(self) -> dict[str, float]:
        people = max(1, self._sizes.people // 25)
        return {"recall 100": self._share([self._facts(self._people, 100) for _ in range(people)], holds_value)}

    def _later(self) -> dict[str, float]:
        """32 facts over 8 adaptations, then other text."""
        cases, firsts = [], []
        for _ in range(self._sizes.later_people):
            relations = self._people.choose(32)
            known = [self._people.known(r, self._people.value(r)) for r in relations]
            parts = [self._told(self._people, known[at : at + 4]) for at in range(0, len(known), 4)]
            cases.append(Case(adapts=tuple(a for p in parts for a in p.adapts), asked=tuple(q for p in parts for q in p.asked)))
            firsts.append(parts[0].asked)
        noise = [self._noise() for _ in cases]
        tokens = self._sizes.noise_tokens
        aged = [Case(adapts=(*c.adapts, *n), asked=f) for c, n, f in zip(cases, noise, firsts, strict=True)]
        return {
            "recall 32 over 8": self._share(cases, holds_value),
            f"oldest of these after {tokens} tokens": self._share(aged, holds_value),
        }

    def _noise(self) -> list[Adapt]:
        count = self._sizes.noise_tokens // NOISE_TOKENS
        return [Adapt(text=self._prose.passage(NOISE_TOKENS * 4)) for _ in range(count)]

    def _language(self) -> dict[str, float]:
        """Bits a byte over the source's, memory empty; and a stranger's memory over the empty one."""
        figures = {}
        memory = self._memories([self._facts(self._people, 4)])
        for name in ("books_test", "wikitext_test"):
            path = self._text / f"{name}.txt"
            if not path.exists():
                continue
            rows, size = self._windows(path.read_text("utf-8")[: self._sizes.text_characters])
            source, empty = self._nats(self._plain, rows, None), self._nats(self._learner, rows, None)
            strange = self._nats(self._learner, rows, memory)
            figures[f"{name}: bits a byte, source"] = source / size / math.log(2)
            figures[f"{name}: empty memory over source"] = empty / source
            figures[f"{name}: a stranger's over empty"] = strange / empty
        return figures

    def _windows(self, text: str) -> tuple[Tensor, int]:
        ids = self._speech.ids(text)
        count = len(ids) // 1024
        rows = torch.tensor(ids[: count * 1024], device=self._learner.weights.embedding.device).view(count, 1024)
        return rows, len(self._speech.tokenizer.decode(ids[: count * 1024]).encode())

    def _nats(self, learner: Learner, rows: Tensor, memory: Tensor | None) -> float:
        total = 0.0
        for row in rows.split(4):
            told = plain_rows(row)
            hidden = learner.read(told, None if memory is None else memory.expand(len(row), -1, -1, -1))
            logits = F.linear(hidden[:, :-1], learner.weights.head).float()
            total += float(F.cross_entropy(logits.flatten(0, 1), row[:, 1:].flatten(), reduction="sum"))
        return total

    def _second_half(self) -> dict[str, float]:
        """Nats a token of 512 tokens of a book after the 1,024 before them were told, over those without memory."""
        with_it = without = 0.0
        for _ in range(self._sizes.later_people):
            ids = self._speech.ids(self._prose.run(9_000))[: 1024 + 512]
            told = Adapt(text=self._speech.tokenizer.decode(ids[:1024]))
            memory = self._memories([Case(adapts=(told,), asked=())])
            rest = torch.tensor([ids[1024:]], device=self._learner.weights.embedding.device)
            with_it += self._nats(self._learner, rest, memory)
            without += self._nats(self._learner, rest, None)
        return {"a text's second part, told over not": with_it / without}

    def _share(self, cases: Sequence[Case], judge: Judge) -> float:
        prompts, owners, asked = [], [], []
        for owner, case in enumerate(cases):
            for question in case.asked:
                prompts.append(self._speech.prompt(question.prompt))
                owners.append(owner)
                asked.append(question)
        said = replies(self._learner, prompts, self._memories(cases), owners=owners, end=self._speech.end)
        return self._judged(asked, said, judge)

    def _share_in_prompt(self, cases: Sequence[Case], told: Sequence[str]) -> float:
        """The source itself, with what was told before the question."""
        asked = [question for case in cases for question in case.asked]
        pairs = zip(told, asked, strict=True)
        prompts = [self._speech.prompt(text + question.prompt) for text, question in pairs]
        return self._judged(asked, replies(self._plain, prompts, None, end=self._speech.end), holds_value)

    def _judged(self, asked: Sequence[Question], said: Sequence[list[int]], judge: Judge) -> float:
        right = [judge(q, self._speech.tokenizer.decode(ids)) for q, ids in zip(asked, said, strict=True)]
        return sum(right) / max(1, len(right))

    def _memories(self, cases: Sequence[Case]) -> Tensor:
        """B of every case, a few cases at a time."""
        return torch.cat([self._some_memories(cases[at : at + 16]) for at in range(0, len(cases), 16)])

    def _some_memories(self, cases: Sequence[Case]) -> Tensor:
        told = [[self._speech.told(adapt) for adapt in case.adapts] for case in cases]
        positions = max(sum(len(ids) - 1 for ids in one) for one in told)
        chunks = -(-positions // CHUNK_TOKENS)
        longest = max(len(ids) for one in told for ids in one)
        bucket = Bucket(
            name="cases",
            users=len(cases),
            chunks=chunks,
            chunk_tokens=CHUNK_TOKENS,
            learned_chunks=chunks,
            ask_tokens=0,
            other_tokens=0,
            facts=(0, 0),
            past_chunks=1 + longest // CHUNK_TOKENS,
        )
        tensors = told_tensors([tell_row(one, noise=(), bucket=bucket) for one in told], bucket)
        device = self._learner.weights.embedding.device
        tensors = type(tensors)(*(t.to(device) for t in tensors))
        return self._learner.teach(tensors, (tensors.mask > 0).any(-1), bucket)


def holds_value(question: Question, said: str) -> bool:
    """Whether every value of the question is said, whole words, letters and digits alone."""
    heard = f" {_plain(said)} "
    return all(f" {_plain(value)} " in heard for value in question.values)


def abstains(question: Question, said: str) -> bool:
    """Whether the reply says that this was never told."""
    return "do not know" in said.lower()


def says_ended(question: Question, said: str) -> bool:
    """Whether the reply says the new state: the very answer, or a denial that is not ignorance."""
    if _plain(said) == _plain(question.answer):
        return True
    return bool(_NEGATIONS.search(said.lower())) and not abstains(question, said)


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()
