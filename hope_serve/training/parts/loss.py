"""The outer loss: answers under the memory, and the base's own distribution wherever nothing was asked."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hope_serve.model.attention import AttentionWeights
from hope_serve.training.parts.batches import Batch
from hope_serve.training.parts.memory import Learner, plain_rows
from hope_serve.training.parts.packing import Bucket


@dataclass(frozen=True, kw_only=True)
class Guard:
    """How dearly a departure from the base is paid: the weight of a KL in nats beside the answers' CE in nats.

    Args:
        empty: with an empty memory, where nothing is gained by it.
        strange: with a memory of something else. It bounds how far a lesson may move a memory, and so what is recalled.
    """

    empty: float = 3.0
    strange: float = 1.0


def batch_loss(
    learner: Learner, base: AttentionWeights, batch: Batch, bucket: Bucket, general: Tensor | None, guard: Guard
) -> tuple[Tensor, Tensor]:
    """The loss of one batch, and its parts: answers, first words, KL with an empty memory, KL with a stranger's.

    Args:
        base: the untouched weights.
        general: [G, P] rows of instructions and the base's own replies, which take the place of a third of ``other``.
    """
    memory = learner.teach(batch.told, batch.taught, bucket)
    answers, first = _answer_loss(learner, batch, bucket, memory)
    other = batch.other if general is None else _mixed(batch.other, general)
    empty, strange = _departure(learner, base, other, memory)
    loss = answers + guard.empty * empty + guard.strange * strange
    return loss, torch.stack([answers, first, empty, strange, memory.square().sum((1, 2, 3)).sqrt().mean()]).detach()


def _answer_loss(learner: Learner, batch: Batch, bucket: Bucket, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean CE of the answers' tokens, and that of their first words alone."""
    hidden = learner.read(batch.asked, memory)
    counted = learner.functions.counted(batch.asked.mask, len(hidden) * bucket.answer_tokens)
    weights = batch.asked.mask.flatten()[counted]
    rows, targets = hidden.flatten(0, 1).index_select(0, counted), batch.asked.targets.flatten()[counted]
    losses = learner.functions.cross_entropies(rows, learner.weights.head, targets)
    first = weights == weights.max()
    return (losses * weights).sum() / weights.sum(), (losses.detach() * first).sum() / first.sum()


def _departure(learner: Learner, base: AttentionWeights, other: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """KL(base || now) a token: every second row with an empty memory, the others with a memory of something else."""
    rows = plain_rows(other)
    plain = Learner(shape=learner.shape, weights=base, part=learner.part, functions=learner.functions)
    with torch.no_grad():
        wanted = plain.read(rows, None).flatten(0, 1)
    strange = torch.arange(len(other), device=other.device) % 2 == 1
    hidden = learner.read(rows, memory * strange[:, None, None, None]).flatten(0, 1)
    each = learner.functions.divergences(hidden, base.head, wanted).view(other.shape).mean(-1)
    return (each * ~strange).sum() / len(other), (each * strange).sum() / len(other)


def _mixed(other: Tensor, general: Tensor) -> Tensor:
    """Every third row replaced by a general one, cut to size."""
    size = min(other.shape[1], general.shape[1])
    chosen = torch.randint(len(general), (len(other),), device=other.device)
    third = (torch.arange(len(other), device=other.device) % 3 == 0)[:, None]
    return torch.where(third, general[chosen, :size], other[:, :size])
