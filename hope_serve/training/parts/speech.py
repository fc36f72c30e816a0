"""Lessons as token ids of the base: its own tokenizer, its own chat template, and how much each answer token counts."""

from __future__ import annotations

import random
from typing import NamedTuple

from tokenizers import Tokenizer

from hope_serve.chat_template import ChatTemplate
from hope_serve.convert.source import Dialogue
from hope_serve.training.lessons.lesson import Adapt, Question

FIRST_WEIGHT, UNTOLD_WEIGHT, VALUE_WEIGHT, TEXT_WEIGHT = 5.0, 4.0, 2.0, 0.4
"""The first word decides between a value and not knowing; plain text counts little, as there is so much of it.

Of what was never told it counts less: with 5 for both, 96 of 100 untold questions were refused and 15 of 100 told ones;
with 3, 83 and 6.
"""
SYSTEM_PROMPTS = ("You are a helpful assistant.", "Answer briefly.", "You talk with a friend of yours.")
_MARK = "\u241f"


class Asked(NamedTuple):
    """One question as ids: what comes before the answer, the answer, and the weight of each of the answer's ids."""

    prompt: list[int]
    answer: list[int]
    weights: list[float]


class Speech:
    """Turns lessons into ids of one base.

    Raises:
        ValueError: the tokenizer lacks the token that ends a reply.
    """

    def __init__(self, dialogue: Dialogue) -> None:
        self.tokenizer = Tokenizer.from_str(dialogue.tokenizer.decode())
        self._template = ChatTemplate(
            dialogue.chat_template, bos_token=dialogue.bos_token, eos_token=dialogue.eos_token
        )
        if not dialogue.stop_tokens:
            raise ValueError("the base names no token that ends a reply; set its eos token")
        self.end = dialogue.stop_tokens[0]

    def ids(self, text: str) -> list[int]:
        """Ids of text as it stands; special tokens in it are special."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def told(self, adapt: Adapt) -> list[int]:
        """Ids of one adaptation."""
        return self.ids(self._template.render(adapt.turns, reply=False) if adapt.turns else adapt.text)

    def opening(self, draw: random.Random) -> tuple[tuple[str, str], ...]:
        """The system message that a conversation begins with: the template's own, or another."""
        return (("system", draw.choice(SYSTEM_PROMPTS)),) if draw.random() < 0.3 else ()

    def before(self, opening: tuple[tuple[str, str], ...]) -> list[int]:
        """Ids that every chat with this opening begins with."""
        return self.ids(self._template.render((*opening, ("user", _MARK))).split(_MARK)[0])

    def prompt(self, text: str, opening: tuple[tuple[str, str], ...] = ()) -> list[int]:
        """Ids of a chat of one message, up to where the reply begins."""
        return self.ids(self._template.render((*opening, ("user", text))))

    def asked(self, question: Question, opening: tuple[tuple[str, str], ...] = ()) -> Asked:
        """A question with its answer and weights."""
        if question.kind == "text":
            answer = self.ids(question.answer)
            return Asked(self.ids(question.prompt), answer, [TEXT_WEIGHT] * len(answer))
        encoding = self.tokenizer.encode(question.answer, add_special_tokens=False)
        spans = [(at, at + len(v)) for v in question.values if (at := question.answer.find(v)) >= 0]
        weights = [
            VALUE_WEIGHT if any(a < end and start < b for a, b in spans) else 1.0 for start, end in encoding.offsets
        ]
        weights[0] = UNTOLD_WEIGHT if question.kind == "untold" else FIRST_WEIGHT
        return Asked(self.prompt(question.prompt, opening), [*encoding.ids, self.end], [*weights, 1.0])
