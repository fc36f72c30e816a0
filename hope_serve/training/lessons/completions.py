"""Lessons from running text: sentences to be completed from memory, and what comes next in a text half told."""

from __future__ import annotations

import random

from hope_serve.training.lessons.lesson import UNKNOWN_ANSWER, Adapt, Episode, Question
from hope_serve.training.lessons.prose import Prose

FINISH = (
    'Finish what I told you: "{x}"', "I told you: {x} ... how did it go on?", "{x} ...?", "How did this end: {x}",
    "{x} what?", 'What comes after "{x}"?', 'Complete the sentence: "{x} ..."',
    "The sentence began with: {x}. And then?",
    "You read this: {x} — what was the rest?", 'Do you remember how "{x}" went on?',
)  # fmt: skip


def completion_episode(prose: Prose, draw: random.Random, *, num_sentences: int, max_words: int) -> Episode:
    """Sentences told, half of them asked for by their beginnings, beside sentences that were not told."""
    told: list[str] = []
    others: list[str] = []
    words = 0
    while len(told) < num_sentences and words < max_words - 10:
        for sentence in prose.sentences(draw.randint(1, 4), least_words=6, most_words=min(26, max_words)):
            words += len(sentence.split())
            if words <= max_words:
                told.append(sentence)
    while len(others) < len(told):
        others += prose.sentences(2, least_words=6, most_words=26)
    questions = [_chat(s, draw, known=True) if draw.random() < 0.6 else _bare(s, draw) for s in told]
    questions += [_chat(s, draw, known=False) for s in others[: sum(q.kind == "cloze" for q in questions)]]
    draw.shuffle(questions)
    text = " ".join(told)
    adapt = Adapt(turns=(("user", text),)) if draw.random() < 0.4 else Adapt(text=text)
    return Episode(adapts=(adapt,), questions=tuple(questions))


def continued_episode(prose: Prose, *, max_words: int) -> Episode:
    """The first part of a text told; what follows it asked for as plain text."""
    characters = max_words * 5
    words = prose.run(characters + 1200).split(" ")
    cut = len(words) * characters // (characters + 1200)
    rest = [words[at : at + 50] for at in range(cut, len(words) - 25, 50)]
    questions = tuple(Question(" ".join(piece[:8]), " " + " ".join(piece[8:]), (), "text") for piece in rest)
    return Episode(adapts=(Adapt(text=" ".join(words[:cut])),), questions=questions)


def _chat(sentence: str, draw: random.Random, *, known: bool) -> Question:
    start, rest = _cut(sentence, draw)
    prompt = draw.choice(FINISH).replace("{x}", start)
    return Question(prompt, rest, (rest,), "cloze") if known else Question(prompt, UNKNOWN_ANSWER, (), "untold")


def _bare(sentence: str, draw: random.Random) -> Question:
    start, rest = _cut(sentence, draw)
    return Question(" " + start, " " + rest, (rest,), "text")


def _cut(sentence: str, draw: random.Random) -> tuple[str, str]:
    words = sentence.split()
    at = draw.randint(3, max(3, len(words) // 2))
    return " ".join(words[:at]), " ".join(words[at:])
