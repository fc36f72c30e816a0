"""Lessons of labelled examples: a few sentences of each topic are told with its label, others are to be labelled.

A topic is a relation, its examples are the questions that people ask about it, and its label says what they are about,
or is a word that has nothing to do with it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from hope_serve.training.lessons.lesson import UNKNOWN_ANSWER, Adapt, Episode, Question
from hope_serve.training.lessons.relations import Relation, wordings
from hope_serve.training.personas import Split

ASKINGS = (
    'Which topic is this: "{x}"?', "Topic of: {x}", 'Sort this in: "{x}"', 'Where do I file "{x}"?',
    "{x} - what kind is it?", 'What label does this get? "{x}"', "Label: {x}", "{x}\nCategory?",
    'I was asked "{x}". Which heading does that come under?', 'Which drawer is for questions like "{x}"?',
)  # fmt: skip
WORDS_PER_EXAMPLE = 24
"""About what one example takes with its question and label, for planning."""
OWN_LABEL, UNTOLD = 0.5, 0.3
"""How often a label says what its topic is about; how many questions are of a topic that was not told, a topic told."""
_ARBITRARY = (
    "amber", "birch", "cobalt", "delta", "ember", "falcon", "granite", "harbour", "indigo", "juniper", "krypton",
    "lantern", "meadow", "nickel", "onyx", "pepper", "quartz", "rowan", "saffron", "timber", "umber", "velvet",
    "willow", "zephyr",
)  # fmt: skip


class _Topic(NamedTuple):
    label: str
    told: list[str]
    asked: list[str]


class Labelled:
    """Draws such lessons. The same seed gives the same lessons.

    Args:
        relations: the topics.
        split: which wordings are examples.
    """

    def __init__(self, relations: Sequence[Relation], split: Split, draw: random.Random) -> None:
        self._draw, self._split = draw, split
        self._relations = [one for one in relations if len(wordings(one.askings, split)) >= 2]

    def episode(self, *, max_words: int, max_adapts: int = 1) -> Episode:
        """Up to six topics in at most about ``max_words`` words; what is asked stands in no example."""
        num_examples = max(1, max_words // WORDS_PER_EXAMPLE)
        count = self._draw.randint(min(2, num_examples), min(6, num_examples))
        chosen = self._chosen(count + 1)
        topics = self._topics(chosen[:-1], num_examples // count, max_words // count)
        wording = self._draw.choice(ASKINGS)
        examples = [(text, topic.label) for topic in topics for text in topic.told]
        self._draw.shuffle(examples)
        adapts = tuple(self._adapt(part, wording) for part in self._parts(examples, max_adapts))
        return Episode(adapts=adapts, questions=tuple(self._questions(topics, chosen[-1], wording)))

    def _chosen(self, count: int) -> list[Relation]:
        """Relations of which none is about what another is about."""
        chosen: list[Relation] = []
        for one in self._draw.sample(self._relations, len(self._relations)):
            if not any(one.attribute == other.attribute or one.clashes(other) for other in chosen):
                chosen.append(one)
            if len(chosen) == count:
                break
        return chosen

    def _topics(self, relations: Sequence[Relation], each: int, words_each: int) -> list[_Topic]:
        own = words_each >= WORDS_PER_EXAMPLE and self._draw.random() < OWN_LABEL
        words = self._draw.sample(_ARBITRARY, len(relations))
        topics = []
        for relation, word in zip(relations, words, strict=True):
            texts = _short(wordings(relation.askings, self._split), words_each)
            self._draw.shuffle(texts)
            most = min(max(1, each), len(texts) - 1, 4)
            topics.append(_Topic(relation.attribute if own else word, texts[:most], texts[most:]))
        return topics

    def _questions(self, topics: Sequence[_Topic], other: Relation, wording: str) -> list[Question]:
        found = []
        for topic in topics:
            for text in topic.asked[: 2 if len(topics) > 1 else 1]:
                found.append(Question(wording.replace("{x}", text), topic.label, (topic.label,)))
        others = _short(wordings(other.askings, self._split), WORDS_PER_EXAMPLE)
        for text in self._draw.sample(others, max(1, min(len(others), round(UNTOLD * len(topics))))):
            found.append(Question(wording.replace("{x}", text), UNKNOWN_ANSWER, (), "untold"))
        self._draw.shuffle(found)
        return found

    def _parts(self, examples: list[tuple[str, str]], most: int) -> list[list[tuple[str, str]]]:
        count = self._draw.randint(1, max(1, min(most, len(examples))))
        cuts = [round(i * len(examples) / count) for i in range(count + 1)]
        return [examples[a:b] for a, b in pairwise(cuts)]

    def _adapt(self, examples: Sequence[tuple[str, str]], wording: str) -> Adapt:
        if self._draw.random() < 0.7:
            pairs = ((("user", wording.replace("{x}", text)), ("assistant", label)) for text, label in examples)
            return Adapt(turns=tuple(turn for pair in pairs for turn in pair))
        return Adapt(text="\n".join(f"{wording.replace('{x}', text)} {label}" for text, label in examples))


def _short(texts: Sequence[str], words: int) -> list[str]:
    """Those of at most about ``words`` words; the two shortest at least."""
    by_length = sorted(texts, key=len)
    return by_length[:2] + [text for text in by_length[2:] if len(text.split()) <= words]
