"""The chunk form as a differentiable function of x and q: on kernels forwards and backwards."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hope_kernels.layout import LinearState, LinearWeights, TitansRule


def differentiable_chunk(
    x: Tensor,
    q: Tensor,
    weights: LinearWeights,
    rule: TitansRule,
    state: LinearState,
    slots: Tensor | None,
    starts: Tensor | None,
) -> Tensor:
    """``titans_chunk`` on the kernels; arguments have been checked."""
    out: Tensor = _Chunk.apply(x, q, weights, rule, state, slots, starts)  # type: ignore[no-untyped-call]
    return out


class _Chunk(torch.autograd.Function):
    """Keeps x, q and what the forward's kernels left of every chunk: its keys, writes, snapshot and gates."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        q: Tensor,
        weights: LinearWeights,
        rule: TitansRule,
        state: LinearState,
        slots: Tensor | None,
        starts: Tensor | None,
    ) -> Tensor:
        from hope_kernels.titans_chunk.launch import launch_chunk

        out, chunks = launch_chunk(x, q, weights, rule, state, slots, starts)
        if any(ctx.needs_input_grad[:2]):
            ctx.save_for_backward(x, q, starts, *vars(chunks).values())
            ctx.weights, ctx.rule = weights, rule
            ctx.batch = len(state.matrix) if slots is None else len(slots)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from hope_kernels.titans_chunk.backward import launch_backward
        from hope_kernels.titans_chunk.launch import Chunks

        x, q, starts, *recorded = ctx.saved_tensors
        grads = launch_backward(x, q, grad, ctx.weights, ctx.rule, Chunks(*recorded), starts, ctx.batch)
        return (*grads, None, None, None, None, None)
