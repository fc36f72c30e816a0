"""The ways in which a question may be answered, side by side: by the memory, by what is put into the prompt, or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hope_serve.evals.retrieval import best_sentences

Context = Callable[[Sequence[str], str], str]
"""From what was told and the question, what stands before the question."""


def nothing(_told: Sequence[str], _question: str) -> str:
    """An empty context."""
    return ""


def everything(told: Sequence[str], _question: str) -> str:
    """All that was told, in its order."""
    return "\n".join(told) + "\n\n"


def retrieved(told: Sequence[str], question: str) -> str:
    """BM25's two best sentences."""
    return "\n".join(best_sentences(told, question)) + "\n\n"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way. ``memory``: the user's memory is read; ``source``: the server of the source model answers."""

    name: str
    memory: bool = False
    context: Context = nothing
    source: bool = False

    def prompt(self, told: Sequence[str], question: str) -> str:
        """What is asked."""
        return self.context(told, question) + question


MEMORY = Arm(name="memory", memory=True)
PROMPT = Arm(name="all in the prompt", context=everything)
BM25 = Arm(name="BM25 in the prompt", context=retrieved)
BOTH = Arm(name="memory + BM25", memory=True, context=retrieved)
NEITHER = Arm(name="neither")
ARMS = (MEMORY, PROMPT, BM25, BOTH, NEITHER)
SOURCE_ARMS = (
    Arm(name="source, all in the prompt", context=everything, source=True),
    Arm(name="source, BM25", context=retrieved, source=True),
)
