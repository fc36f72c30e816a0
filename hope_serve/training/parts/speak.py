"""Replies under memories: greedy for evaluation, sampled for the base's own way of talking."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_serve.model.attention_learn import PADDING, Told
from hope_serve.training.parts.memory import Learner

ROWS_AT_ONCE = 384


@torch.no_grad()
def replies(
    learner: Learner,
    prompts: Sequence[list[int]],
    memory: Tensor | None,
    *,
    owners: Sequence[int] = (),
    end: int,
    max_tokens: int = 24,
    temperature: float = 0.0,
) -> list[list[int]]:
    """What is said after each prompt, up to ``end`` and without it.

    Args:
        memory: B [U, L, d, r], or None for none; ``owners``: for each prompt whose.
        temperature: 0 is greedy.
    """
    said: list[list[int]] = []
    for at in range(0, len(prompts), ROWS_AT_ONCE):
        chosen = None
        if memory is not None:
            index = torch.tensor(owners[at : at + ROWS_AT_ONCE], device=memory.device)
            chosen = memory.to(learner.weights.embedding.dtype)[index]
        said += _some(learner, prompts[at : at + ROWS_AT_ONCE], chosen, end, max_tokens, temperature)
    return said


def _some(
    learner: Learner, prompts: Sequence[list[int]], memory: Tensor | None, end: int, max_tokens: int, temperature: float
) -> list[list[int]]:
    device = learner.weights.embedding.device
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    width = -(-(int(lengths.max()) + max_tokens) // 8) * 8
    tokens = torch.tensor([p + [0] * (width - len(p)) for p in prompts], device=device)
    rows = torch.arange(len(prompts), device=device)
    done = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    for _ in range(max_tokens):
        hidden = learner.read(_padded(tokens, lengths), memory)
        logits = F.linear(hidden[rows, lengths - 1], learner.weights.head).float()
        following = _choose(logits, temperature)
        done |= following == end
        tokens[rows[~done], lengths[~done]] = following[~done]
        lengths = lengths + (~done).long()
        if bool(done.all()):
            break
    return [row[len(p) : n] for row, p, n in zip(tokens.tolist(), prompts, lengths.tolist(), strict=True)]


def _choose(logits: Tensor, temperature: float) -> Tensor:
    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial(torch.softmax(logits / temperature, -1), 1)[:, 0]


def _padded(tokens: Tensor, lengths: Tensor) -> Told:
    positions = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
    segments = torch.where(positions < lengths[:, None], 1, PADDING)
    return Told(tokens, tokens, torch.zeros_like(positions, dtype=torch.float32), positions, segments)
