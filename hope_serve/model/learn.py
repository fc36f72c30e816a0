"""How CMS levels learn online: the exact next-token gradient of a segment, and what a full chunk makes of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_serve.model.cadence import Cadence
from hope_serve.model.cms import Delta
from hope_serve.model.cms_state import CmsState, LevelState, level_optimizers
from hope_serve.model.hope import Deltas, HopeModel
from hope_serve.model.state import SequenceState
from hope_serve.optim import LevelOptimizer


@dataclass(frozen=True, kw_only=True)
class LevelRule:
    """How one online level moves. rates, decays: of its inner and outer matrices, each [L, 1, 1]."""

    optimizer: LevelOptimizer
    rates: tuple[Tensor, Tensor]
    decays: tuple[Tensor, Tensor]


Rules = tuple[LevelRule, ...]
"""One an online level, fast to slow."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What one segment gave: gradients per online level, per-token loss and weight [B, T], the state after it."""

    gradients: Deltas
    nll: Tensor
    weight: Tensor
    state: SequenceState


def segment_gradient(
    model: HopeModel,
    inputs: Tensor,
    targets: Tensor,
    state: SequenceState,
    deltas: Deltas,
    *,
    consumed: int = 0,
    mask: Tensor | None = None,
    create_graph: bool = False,
) -> Segment:
    """d(sum_t w_t CE_t)/d(delta) of every online level, backpropagated through later levels and layers.

    Truncated at the start of the segment: ``state`` is a constant of this gradient (not of an outer one).

    Args:
        inputs, targets: [B, T] ids; ``targets[t]`` follows ``inputs[t]``.
        state: the sequences' state before the segment.
        deltas: what the levels have learned, as of their last update.
        mask: [B, T], 0 for positions that teach nothing.
        create_graph: keep the graph, for an outer loss through the update.

    Source: arXiv 2512.24695, Eq 71; sum and not mean, so that a rate does not depend on how text is cut.
    """
    leaves = [t if t.requires_grad else t.detach().requires_grad_() for delta in deltas for t in delta]
    paired = tuple(Delta(*leaves[i : i + 2]) for i in range(0, len(leaves), 2))
    with torch.enable_grad():
        hidden, after = model(inputs, state, consumed=consumed, deltas=paired)
        nll = F.cross_entropy(model.logits(hidden).flatten(0, 1), targets.flatten(), reduction="none")
        nll = nll.view_as(targets)
        weight = model.learning_weight(hidden)
        weight = weight if mask is None else weight * mask
        gradients = torch.autograd.grad((weight * nll).sum(), leaves, create_graph=create_graph)
    return Segment(
        gradients=tuple(Delta(*gradients[i : i + 2]) for i in range(0, len(gradients), 2)),
        nll=nll,
        weight=weight,
        state=after,
    )


def accumulate(cms: CmsState, gradients: Deltas) -> CmsState:
    """Add a segment's gradients to the open chunks."""
    return CmsState(
        levels=tuple(
            LevelState(
                delta=level.delta,
                gradient=Delta(*(a + b for a, b in zip(level.gradient, gradient, strict=True))),
                slots=level.slots,
            )
            for level, gradient in zip(cms.levels, gradients, strict=True)
        )
    )


def fire(rules: Rules, cms: CmsState, fired: tuple[bool, ...]) -> CmsState:
    """Update the levels whose chunk ended, and open their next chunk."""
    levels = zip(rules, cms.levels, fired, strict=True)
    return CmsState(levels=tuple(_updated(rule, level) if due else level for rule, level, due in levels))


def read_deltas(rules: Rules, cms: CmsState, cadence: Cadence) -> Deltas:
    """What the levels read with: open chunks count as if they ended here.

    So a text shorter than a chunk is known at once, while the chunk itself goes on collecting: reading changes
    neither the accumulators nor when a level fires.
    """
    levels = zip(rules, cms.levels, cadence.open(), strict=True)
    return tuple(_updated(rule, level).delta if is_open else level.delta for rule, level, is_open in levels)


def read_deltas_where(rules: Rules, cms: CmsState, is_open: Tensor) -> Deltas:
    """The same for B sequences whose chunks stand at different places.

    Args:
        cms: [B, L, rows, columns] each.
        is_open: [levels, B] bool.
    """
    read = []
    for rule, level, opens in zip(rules, cms.levels, is_open, strict=True):
        if_open, where = _updated(rule, level).delta, opens[:, None, None, None]
        read.append(Delta(*(torch.where(where, a, b) for a, b in zip(if_open, level.delta, strict=True))))
    return tuple(read)


def level_rules(model: HopeModel) -> Rules:
    """The rules of a model's online levels; differentiable by its rates and decays."""
    rules = []
    for index, optimizer in zip(model.config.online_levels, level_optimizers(model.config), strict=True):
        levels = [block.levels[index] for block in model.blocks]
        rates = torch.stack([level.log_rate for level in levels]).exp()[..., None, None]
        decays = torch.sigmoid(torch.stack([level.decay_logit for level in levels]))[..., None, None]
        rules.append(
            LevelRule(optimizer=optimizer, rates=(rates[:, 0], rates[:, 1]), decays=(decays[:, 0], decays[:, 1]))
        )
    return tuple(rules)


def _updated(rule: LevelRule, level: LevelState) -> LevelState:
    """The level after its optimizer saw the chunk's gradient."""
    sides = []
    for side, (rate, decay) in enumerate(zip(rule.rates, rule.decays, strict=True)):
        slots = tuple(slot[side] for slot in level.slots)
        sides.append(rule.optimizer.update(level.delta[side], level.gradient[side], slots, rate=rate, decay=decay))
    return LevelState(
        delta=Delta(sides[0][0], sides[1][0]),
        gradient=Delta(*(torch.zeros_like(g) for g in level.gradient)),
        slots=tuple(Delta(a, b) for a, b in zip(sides[0][1], sides[1][1], strict=True)),
    )
