"""What a lesson is: texts told one after the other, and the questions asked when they are gone from the context."""

from __future__ import annotations

from typing import NamedTuple

UNKNOWN_ANSWER = "I do not know that yet."
"""The one way to say that something was never told: learned by its first word, and easy to recognise."""
OVER = "Not any more."
"""What every answer about something that has come to its end begins with, for the same reason."""


class Adapt(NamedTuple):
    """One adaptation: plain text, or the turns of a conversation as (role, text)."""

    text: str = ""
    turns: tuple[tuple[str, str], ...] = ()

    @property
    def words(self) -> str:
        """Everything said, for counting."""
        return self.text + " ".join(text for _, text in self.turns)


class Question(NamedTuple):
    """A question in a fresh context and the answer wanted.

    values: the parts of the answer that have to be remembered; kind: told, untold, corrected, ended, joined, cloze,
    read (what is asked for stands in the prompt) or text (no chat: ``prompt`` is continued); gone: what was told
    before, and holds no longer.
    """

    prompt: str
    answer: str
    values: tuple[str, ...] = ()
    kind: str = "told"
    gone: tuple[str, ...] = ()


class Episode(NamedTuple):
    """A whole lesson; ``noise`` are texts told after it about nothing that is asked."""

    adapts: tuple[Adapt, ...]
    questions: tuple[Question, ...]
    noise: tuple[Adapt, ...] = ()
