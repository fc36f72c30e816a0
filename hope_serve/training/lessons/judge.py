"""Whether a reply is right: judged by its words, letters and digits alone."""

from __future__ import annotations

import re
from collections.abc import Callable

from hope_serve.training.lessons.lesson import Question

Judge = Callable[[Question, str], bool]

_IGNORANCE = re.compile(
    r"\b(do not|don't|did not|didn't|cannot|can't|could not|couldn't|have not|haven't|has not|hasn't|not|never|nobody)"
    r"( yet| ever| actually| really)? (know|been told|told|tell|said|say|mention|mentioned|sure|aware|recall)\b"
    r"|\bno (idea|information|record)\b"
)
_NEGATIONS = re.compile(r"\b(no|not|none|never|without|nothing|nobody|retired|gone|over|ended|stopped|former)\b|n't")


def holds_value(question: Question, said: str) -> bool:
    """Whether every value of the question is said, whole words, letters and digits alone."""
    heard = f" {_plain(said)} "
    return all(f" {_plain(value)} " in heard for value in question.values)


def holds_any(question: Question, said: str) -> bool:
    """Whether one of the question's values is said, also inside a word."""
    heard = said.lower()
    return any(value.lower() in heard for value in question.values)


def abstains(_: Question, said: str) -> bool:
    """Whether the reply says that this was never told."""
    return bool(_IGNORANCE.search(said.lower().replace("\u2019", "'")))


def says_ended(question: Question, said: str) -> bool:
    """Whether the reply says the new state: the very answer, or a denial that is not ignorance.

    A denial within what was told before ("no sugar") denies nothing.
    """
    if _plain(said) == _plain(question.answer):
        return True
    heard = said.lower()
    for value in question.gone:
        heard = heard.replace(value.lower(), "")
    return bool(_NEGATIONS.search(heard)) and not abstains(question, said)


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()
