"""What a step of lessons does to a level's pools, in place: the kernel where the rule has one, else the rule itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hope_kernels.cms_update.layout import LevelPools
from hope_kernels.cms_update.op import cms_update
from torch import Tensor

from hope_serve.model.cms import Delta
from hope_serve.model.cms_state import LevelState
from hope_serve.model.learn import LevelRule
from hope_serve.optim import KernelRule


def update_level(
    rule: LevelRule, level: LevelState, gradient: Delta, slots: Tensor, due: Tensor, scale: Tensor
) -> None:
    """Add the gradients of B lessons to their open chunks, and let the rule move those whose chunk ends.

    Args:
        level: the pools, [S, L, rows, columns] each.
        gradient: [B, L, rows, columns] a side.
        slots: [B] int32, all different; a lesson in slot 0 changes nothing.
        due: [B] bool, whose chunk ends with these gradients.
        scale: [B] fp32, a factor on each lesson's gradient.
    """
    for side, one in enumerate(gradient):
        if not one.shape[-2]:
            continue  # it does not learn
        matrix = _Matrix(
            delta=level.delta[side],
            gradient=level.gradient[side],
            kept=tuple(slot[side] for slot in level.slots),
            rate=rule.rates[side].float(),
            decay=rule.decays[side].float(),
        )
        kernel = rule.optimizer.kernel
        if kernel is None:
            _follow_rule(rule, matrix, one.float(), slots, due, scale)
        else:
            _follow_kernel(kernel, matrix, one.float(), slots, due, scale)


@dataclass(frozen=True, kw_only=True)
class _Matrix:
    """One matrix of a level in every slot; rate, decay: [L, 1, 1] fp32."""

    delta: Tensor
    gradient: Tensor
    kept: tuple[Tensor, ...]
    rate: Tensor
    decay: Tensor


def _follow_kernel(
    kernel: KernelRule, matrix: _Matrix, gradient: Tensor, slots: Tensor, due: Tensor, scale: Tensor
) -> None:
    pools = LevelPools(delta=matrix.delta, gradient=matrix.gradient, momentum=matrix.kept[0] if matrix.kept else None)
    rate, decay = matrix.rate.flatten().contiguous(), matrix.decay.flatten().contiguous()
    cms_update(pools, gradient.contiguous(), slots, due, rate, decay, beta=kernel.beta, scale=scale.contiguous())


def _follow_rule(rule: LevelRule, matrix: _Matrix, gradient: Tensor, slots: Tensor, due: Tensor, scale: Tensor) -> None:
    """The same on the gathered slots; only lessons whose chunk ends are computed."""
    used = slots.nonzero()[:, 0]
    at, ends = slots[used].long(), due[used]
    matrix.gradient[at] += scale[used][:, None, None, None] * gradient[used]
    fired = at[ends]
    if not len(fired):
        return
    kept = tuple(pool[fired] for pool in matrix.kept)
    moved, kept = rule.optimizer.update(
        matrix.delta[fired], matrix.gradient[fired], kept, rate=matrix.rate, decay=matrix.decay
    )
    matrix.delta[fired] = moved
    matrix.gradient[fired] = torch.zeros_like(moved)
    for pool, after in zip(matrix.kept, kept, strict=True):
        pool[fired] = after
