"""Instructions of every kind and what the base itself says to them: the talk that a memory must leave as it is."""

from __future__ import annotations

import json
import random
from importlib.resources import files

import torch
from torch import Tensor

from hope_serve.training.parts.memory import Learner
from hope_serve.training.parts.speak import replies
from hope_serve.training.parts.speech import Speech


def load_instructions() -> tuple[str, ...]:
    """Every instruction, templates filled with each of their fillings."""
    raw = json.loads(files("hope_serve.training.lessons").joinpath("general.json").read_text("utf-8"))
    filled = [text.replace("{x}", x) for one in raw["templates"] for text in one["texts"] for x in one["fillings"]]
    return (*raw["plain"], *filled)


def general_rows(learner: Learner, speech: Speech, *, rows: int, tokens: int) -> Tensor | None:
    """[rows, tokens] of instructions with the base's own sampled replies; None when ``rows`` is 0.

    A short reply is followed by the next instruction, so that every row is full.
    """
    if rows == 0:
        return None
    draw = random.Random(0)  # noqa: S311 - a reproducible draw, nothing secret
    instructions = [draw.choice(load_instructions()) for _ in range(rows)]
    prompts = [speech.prompt(text) for text in instructions]
    said = replies(learner, prompts, None, end=speech.end, max_tokens=min(64, tokens // 2), temperature=1.0)
    whole = [[*prompt, *reply, speech.end] for prompt, reply in zip(prompts, said, strict=True)]
    table = [(whole[i] + whole[(i + 1) % rows] + whole[(i + 2) % rows] * tokens)[:tokens] for i in range(rows)]
    return torch.tensor(table, device=learner.weights.embedding.device)
