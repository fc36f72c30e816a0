"""People and what they tell: facts, corrections and endings over several adaptations, other prose between them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hope_serve.training.lessons.lesson import OVER, UNKNOWN_ANSWER, Adapt, Episode, Question
from hope_serve.training.lessons.prose import Prose
from hope_serve.training.lessons.relations import Relation, load_relations, load_values, side, wordings
from hope_serve.training.lessons.wording import ACKNOWLEDGEMENTS, asked, before, filled, told
from hope_serve.training.personas import Split

WORDS_PER_FACT = 14
"""About what one telling takes, for planning."""
TOKENS_PER_WORD = 1.45


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is true of a relation at the end: an answer, the words in it that have to be remembered, and how it came.

    gone: the value that an end has taken away.
    """

    relation: Relation
    answer: str
    value: str
    kind: str
    gone: str = ""


@dataclass(frozen=True, kw_only=True)
class Habits:
    """How often people do what.

    prose: the share of lessons with other text in them; in_prompt: that of lessons which ask, too, for something that
    was never told but stands before the question.
    """

    correct: float = 0.45
    end: float = 0.45
    same_attribute: float = 0.5
    prose: float = 0.5
    turns: float = 0.4
    in_prompt: float = 0.5
    noisy_words: bool = True


class People:
    """Draws lessons of facts. The same seed gives the same lessons.

    Args:
        split: the side of values and wordings.
        prose: for what is told around the facts.
        draw: the source of chance.
        new_relations: draw the held-out relations (with all their wordings) instead of the others.
    """

    def __init__(
        self,
        split: Split,
        prose: Prose,
        draw: random.Random,
        *,
        new_relations: bool = False,
        habits: Habits | None = None,
    ) -> None:
        self.split, self.prose, self.draw = split, prose, draw
        self.habits = habits or Habits()
        self._values = {name: side(values, split) for name, values in load_values().items()}
        usable = (r for r in load_relations() if r.held_out == new_relations and len(self._values[r.pool]) >= 2)
        self.relations = tuple(usable)
        self._same = _by_attribute(self.relations)

    def episode(self, num_facts: int, *, max_words: int, max_adapts: int = 8) -> Episode:
        """A lesson of about ``num_facts`` facts in at most about ``max_words`` words of telling."""
        known, told_pieces = self._life(num_facts)
        adapts = self.spread(told_pieces, max_words=max_words, max_adapts=max_adapts)
        return Episode(adapts=adapts, questions=tuple(self.questions(known, wordings_each=2)))

    def questions(self, known: Sequence[Known], *, wordings_each: int = 1) -> list[Question]:
        """As many questions about what was told as about what was not, in turn."""
        asked_of = [one for _ in range(wordings_each) for one in self.draw.sample(known, len(known))]
        told_of = [one.relation for one in known]
        pairs = ((self.question(one), self.unknown(told_of, near=self.draw.choice(told_of))) for one in asked_of)
        found = [question for pair in pairs for question in pair]
        if self.draw.random() < self.habits.in_prompt:
            found.append(self._in_prompt(told_of))
        return found

    def question(self, known: Known) -> Question:
        """A question about what is known."""
        values = (known.value,) if known.value else ()
        gone = (known.gone,) if known.gone else ()
        return Question(self._asking(known.relation), known.answer, values, known.kind, gone)

    def _in_prompt(self, told_of: Sequence[Relation]) -> Question:
        """What was never told, but stands before the question."""
        relation = self.unknown_relation(told_of)
        known = self.known(relation, self.value(relation))
        return before(self.tell(relation, known.value), self.question(known), self.draw)

    def unknown(self, told_of: Sequence[Relation], *, near: Relation | None = None) -> Question:
        """A question that nothing told answers; half of the time about the same attribute of another owner."""
        relation = self.unknown_relation(told_of, near=near)
        return Question(self._asking(relation), UNKNOWN_ANSWER, (), "untold")

    def unknown_relation(self, told_of: Sequence[Relation], *, near: Relation | None = None) -> Relation:
        """A relation that none of ``told_of`` says anything about."""
        pool = (
            self._same[near.attribute] if near and self.draw.random() < self.habits.same_attribute else self.relations
        )
        for _ in range(20):
            one = self.draw.choice(pool)
            if not any(one.clashes(other) for other in told_of):
                return one
            pool = self.relations
        raise ValueError(f"{len(self.relations)} relations are too few for {len(told_of)} facts; add relations")

    def choose(self, count: int) -> list[Relation]:
        """Relations of one person, some of them the same attribute of several owners."""
        chosen: list[Relation] = []
        for _ in range(count * 8):
            if len(chosen) == count:
                break
            near = self.draw.choice(chosen) if chosen and self.draw.random() < self.habits.same_attribute / 2 else None
            one = self.draw.choice(self._same[near.attribute] if near else self.relations)
            if not any(one.clashes(other) for other in chosen):
                chosen.append(one)
        return chosen

    def value(self, relation: Relation, *, other_than: str = "") -> str:
        """One of the relation's values on this side of the split."""
        values = self._values[relation.pool]
        while (value := self.draw.choice(values)) == other_than:
            continue
        return value

    def tell(self, relation: Relation, value: str) -> str:
        """One telling."""
        return self._worded(relation.tellings, value)

    def known(self, relation: Relation, value: str, kind: str = "told") -> Known:
        """What is known once ``value`` was told."""
        return Known(relation=relation, answer=filled(relation.answer, value), value=value, kind=kind)

    def correct(self, known: Known) -> tuple[str, Known] | None:
        """A correction, and what is known after it; None where the relation has none."""
        if not known.relation.corrections or known.kind == "ended":
            return None
        new = self.value(known.relation, other_than=known.value)
        return self._worded(known.relation.corrections, new, known.value), self.known(known.relation, new, "corrected")

    def end(self, known: Known) -> tuple[str, Known] | None:
        """The end of what was told, and what is known after it; None where the relation has none."""
        if not known.relation.ended:
            return None
        ending = self.draw.choice(wordings(known.relation.ended, self.split))
        told_text = self._worded((ending.telling,), "", known.value, all_of_them=True)
        answer = f"{OVER} {filled(ending.answer, '', known.value)}"
        return told_text, Known(relation=known.relation, answer=answer, value="", kind="ended", gone=known.value)

    def spread(self, pieces: list[str], *, max_words: int, max_adapts: int) -> tuple[Adapt, ...]:
        """The pieces in their order over adaptations, at least half of ``max_adapts``, amid some other prose."""
        most = min(max_adapts, len(pieces))
        groups = _about_even(pieces, self.draw.randint((most + 1) // 2, most), self.draw)
        spare = max_words - sum(len(piece.split()) for piece in pieces)
        return tuple(self._adapt(group, self.prose_share(spare) // len(groups)) for group in groups)

    def surround(self, pieces: Sequence[str], words: int) -> Adapt:
        """One adaptation with about ``words`` words of other prose around and between the pieces."""
        return self._adapt(list(pieces), words)

    def _life(self, count: int) -> tuple[list[Known], list[str]]:
        """What is known in the end, and every telling in its order."""
        state: dict[str, Known] = {}
        pieces: list[tuple[float, str]] = []
        for relation in self.choose(count):
            known, at = self.known(relation, self.value(relation)), self.draw.random()
            pieces.append((at, self.tell(relation, known.value)))
            for share, change in ((self.habits.correct, self.correct), (self.habits.end, self.end)):
                changed = change(known) if self.draw.random() < share / 2 else None
                if changed and known.kind == "told":
                    pieces.append((self.draw.uniform(at, 1.2), changed[0]))
                    known = changed[1]
            state[relation.key] = known
        return list(state.values()), [text for _, text in sorted(pieces)]

    def _adapt(self, pieces: list[str], prose_words: int) -> Adapt:
        mixed = self._mixed(pieces, prose_words)
        if self.draw.random() < self.habits.turns:
            return Adapt(turns=tuple(self._conversation(mixed)))
        return Adapt(text=_joined(mixed, self.draw))

    def _mixed(self, pieces: list[str], prose_words: int) -> list[str]:
        """The pieces with sentences of other prose in the gaps, about ``prose_words`` of them."""
        gaps: list[list[str]] = [[] for _ in range(len(pieces) + 1)]
        left = prose_words
        while left > 8:
            sentences = self.prose.sentences(self.draw.randint(1, 6), most_words=min(40, left))
            self.draw.choice(gaps).extend(sentences)
            left -= sum(len(s.split()) for s in sentences) + 1
        mixed = list(gaps[0])
        for piece, gap in zip(pieces, gaps[1:], strict=True):
            mixed += [piece, *gap]
        return mixed

    def _conversation(self, pieces: list[str]) -> list[tuple[str, str]]:
        """The pieces over one or several turns of the user."""
        groups = _split(pieces, self.draw.randint(1, min(3, len(pieces))), self.draw)
        turns: list[tuple[str, str]] = []
        for index, group in enumerate(groups):
            turns.append(("user", _joined(group, self.draw)))
            if index < len(groups) - 1 or self.draw.random() < 0.3:
                turns.append(("assistant", self.draw.choice(ACKNOWLEDGEMENTS)))
        return turns

    def prose_share(self, spare: int) -> int:
        """How many words of other prose stand in a lesson that has room for ``spare``."""
        if spare < 10 or self.draw.random() >= self.habits.prose:
            return 0
        return int(spare * self.draw.random())

    def _asking(self, relation: Relation) -> str:
        text = str(self.draw.choice(wordings(relation.askings, self.split)))
        return asked(text, self.draw) if self.habits.noisy_words else text

    def _worded(self, texts: tuple[str, ...], value: str, old: str = "", *, all_of_them: bool = False) -> str:
        text = str(self.draw.choice(texts if all_of_them else wordings(texts, self.split)))
        return filled(told(text, self.draw) if self.habits.noisy_words else text, value, old)


def _by_attribute(relations: Sequence[Relation]) -> Mapping[str, tuple[Relation, ...]]:
    table: dict[str, list[Relation]] = {}
    for relation in relations:
        table.setdefault(relation.attribute, []).append(relation)
    return {attribute: tuple(found) for attribute, found in table.items()}


def _split(pieces: list[str], parts: int, draw: random.Random) -> list[list[str]]:
    """Consecutive groups, none of them empty."""
    cuts = sorted(draw.sample(range(1, len(pieces)), parts - 1)) if parts > 1 else []
    return [pieces[a:b] for a, b in zip([0, *cuts], [*cuts, len(pieces)], strict=True)]


def _about_even(pieces: list[str], parts: int, draw: random.Random) -> list[list[str]]:
    """Consecutive groups of about one size, since each is to fit into a chunk; none of them empty."""
    cuts = [0]
    for part in range(1, parts):
        even = round(part * len(pieces) / parts) + draw.randint(-1, 1)
        cuts.append(min(max(even, cuts[-1] + 1), len(pieces) - parts + part))
    return [pieces[a:b] for a, b in zip(cuts, [*cuts[1:], len(pieces)], strict=True)]


def _joined(pieces: list[str], draw: random.Random) -> str:
    """Pieces as one text: sentences in a row, mostly, or lines."""
    if draw.random() < 0.15 or any("\n" in piece for piece in pieces):
        return "\n".join(pieces)
    return " ".join(piece if piece.rstrip()[-1:] in ".?!:\"'" else piece + "." for piece in pieces)
