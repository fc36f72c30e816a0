"""What a part costs the base's language, and what a text told beforehand gives."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_serve.training.lessons.cases import Case
from hope_serve.training.lessons.lesson import Adapt
from hope_serve.training.lessons.prose import Prose
from hope_serve.training.parts.examiner import Examiner
from hope_serve.training.parts.memory import Learner, plain_rows

WINDOW = 1024
TEXTS = ("books_test", "wikitext_test")
TOLD, MEASURED = 1024, 512


def language(examiner: Examiner, plain: Learner, text: Path, stranger: Case, *, characters: int) -> dict[str, float]:
    """Bits a byte over the source's, memory empty; and a stranger's memory over the empty one."""
    figures = {}
    memory = examiner.memories([stranger])
    for name in TEXTS:
        path = text / f"{name}.txt"
        if not path.exists():
            continue
        rows, size = _windows(examiner, path.read_text("utf-8")[:characters])
        source, empty = _nats(plain, rows, None), _nats(examiner.learner, rows, None)
        strange = _nats(examiner.learner, rows, memory)
        figures[f"{name}: bits a byte, source"] = source / size / math.log(2)
        figures[f"{name}: empty memory over source"] = empty / source
        figures[f"{name}: a stranger's over empty"] = strange / empty
    return figures


def second_half(examiner: Examiner, prose: Prose, *, texts: int) -> dict[str, float]:
    """Nats of the tokens that follow in a text whose beginning was told, over those without memory."""
    with_it = without = 0.0
    for _ in range(texts):
        ids = examiner.speech.ids(prose.run(9_000))[: TOLD + MEASURED]
        told = Adapt(text=examiner.speech.tokenizer.decode(ids[:TOLD]))
        memory = examiner.memories([Case(adapts=(told,), asked=())])
        rest = torch.tensor([ids[TOLD:]], device=examiner.learner.weights.embedding.device)
        with_it += _nats(examiner.learner, rest, memory)
        without += _nats(examiner.learner, rest, None)
    return {"a text's second part, told over not": with_it / without}


def _windows(examiner: Examiner, text: str) -> tuple[Tensor, int]:
    """Rows [n, WINDOW] of the text, and how many bytes they stand for."""
    ids = examiner.speech.ids(text)
    ids = ids[: len(ids) // WINDOW * WINDOW]
    rows = torch.tensor(ids, device=examiner.learner.weights.embedding.device).view(-1, WINDOW)
    return rows, len(examiner.speech.tokenizer.decode(ids).encode())


def _nats(learner: Learner, rows: Tensor, memory: Tensor | None) -> float:
    total = 0.0
    for row in torch.split(rows, 4):
        told = plain_rows(row)
        hidden = learner.read(told, None if memory is None else memory.expand(len(row), -1, -1, -1))
        logits = F.linear(hidden[:, :-1], learner.weights.head).float()
        total += float(F.cross_entropy(logits.flatten(0, 1), row[:, 1:].flatten(), reduction="sum"))
    return total
