"""How the update's kernels are launched; no autotuning, since a trial run would change the pools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import triton  # type: ignore[import-untyped]
from torch import Tensor

from hope_kernels.cms_delta.launch import SumBlocks, multiplies_as_is, padded, sum_blocks
from hope_kernels.cms_update.layout import LevelPools, Rows
from hope_kernels.cms_update.update_kernel import update_rows_kernel, update_sums_kernel


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a call does to which slots: the arguments of ``cms_update`` behind the gradients."""

    slots: Tensor | None
    fired: Tensor
    rate: Tensor
    decay: Tensor
    beta: float
    scale: Tensor | None


def launch_sums(pools: LevelPools, added: Tensor, step: Step, block: int = 2048) -> None:
    """Summed gradients [B, L, d_out, r], contiguous behind the first axis."""
    count, layers = added.shape[:2]
    size = added[0, 0].numel()
    update_sums_kernel[(count * triton.cdiv(size, block), layers)](
        added,
        *_pool_pointers(pools),
        *_step_pointers(step),
        step.beta,
        len(pools.delta),
        added.stride(0),
        *_pool_strides(pools),
        SIZE=size,
        BLOCK=block,
        **_kinds(pools, step),
        num_warps=4,
    )


def launch_rows(pools: LevelPools, rows: Rows, step: Step, blocks: SumBlocks | None = None) -> None:
    """Gradients as rows, summed on the way."""
    layers, count = rows.grad.shape[0], len(rows.cu_seqlens) - 1
    d_out, rank = pools.delta.shape[2:]
    same = multiplies_as_is(rows.grad, rows.projected)
    blocks = blocks or sum_blocks(not same, rank)
    update_rows_kernel[(count * triton.cdiv(d_out, blocks.out), layers)](
        rows.grad,
        rows.projected,
        rows.cu_seqlens,
        *_pool_pointers(pools),
        *_step_pointers(step),
        step.beta,
        rows.grad.shape[1],
        len(pools.delta),
        rows.grad.stride(0),
        rows.grad.stride(1),
        *_pool_strides(pools),
        D_OUT=d_out,
        RANK=rank,
        R=padded(rank),
        OUT=blocks.out,
        ROWS=blocks.rows,
        STAGES=blocks.stages,
        SAME=same,
        **_kinds(pools, step),
        num_warps=blocks.warps,
    )


def _pool_pointers(pools: LevelPools) -> tuple[Tensor | None, ...]:
    return pools.delta, pools.gradient, pools.momentum


def _pool_strides(pools: LevelPools) -> tuple[int, int, int]:
    momentum = 0 if pools.momentum is None else pools.momentum.stride(0)
    return pools.delta.stride(0), pools.gradient.stride(0), momentum


def _step_pointers(step: Step) -> tuple[Tensor | None, ...]:
    return step.slots, step.fired, step.rate, step.decay, step.scale


def _kinds(pools: LevelPools, step: Step) -> dict[str, Any]:
    return {
        "HAS_SLOTS": step.slots is not None,
        "HAS_SCALE": step.scale is not None,
        "HAS_MOMENTUM": pools.momentum is not None,
    }
