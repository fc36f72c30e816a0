"""The chunk form as a differentiable function of x and q: kernels forwards, the reference again backwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hope_kernels.layout import LinearState, LinearWeights, TitansRule
from hope_kernels.pool import take, weights_in
from hope_kernels.titans_chunk.reference import titans_chunk_reference


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
    """Keeps x, q and the state before; what a token writes is recomputed, as whole chunks are few products."""

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

        if any(ctx.needs_input_grad[:2]):
            count = len(state.matrix) if slots is None else len(slots)
            known = torch.arange(count, device=x.device) if slots is None else slots.long()
            ctx.before = take(state, known.clamp(0, len(state.matrix) - 1), torch.float32)
            ctx.save_for_backward(x, q, slots, starts)
            ctx.weights, ctx.rule = weights, rule
            ctx.last_slot = len(state.matrix) - (slots is not None)
        return launch_chunk(x, q, weights, rule, state, slots, starts)[0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, q, slots, starts = ctx.saved_tensors
        count, at = len(ctx.before.matrix), ctx.before.position[:, 0].tolist()
        ids = range(1, count + 1) if slots is None else slots.tolist()
        if starts is None:
            starts = torch.arange(count + 1) * (len(x) // count)
        places = [at[b] if 0 < slot <= ctx.last_slot else ctx.rule.chunk_size for b, slot in enumerate(ids)]
        grads = (torch.zeros_like(x), torch.zeros_like(q))
        for (place, length), rows in _alike(places, starts.diff().tolist(), ids).items():
            tokens = starts[rows].to(x.device)[:, None] + torch.arange(length, device=x.device)
            if place >= ctx.rule.chunk_size:
                for total in grads:
                    total[tokens] = torch.nan
                continue
            for total, part in zip(
                grads, _recompute(ctx, x[tokens], q[tokens], grad[tokens], rows, place), strict=True
            ):
                total[tokens] = part.to(total.dtype)
        return (*grads, None, None, None, None, None)


def _alike(places: list[int], lengths: list[int], ids: Sequence[int]) -> dict[tuple[int, int], list[int]]:
    """Sequences by (place in the chunk, tokens): those of one entry share every product. Padding is left out."""
    groups: dict[tuple[int, int], list[int]] = {}
    for b, (key, slot) in enumerate(zip(zip(places, lengths, strict=True), ids, strict=True)):
        if slot != 0:
            groups.setdefault(key, []).append(b)
    return groups


def _recompute(ctx: Any, x: Tensor, q: Tensor, grad: Tensor, rows: list[int], at: int) -> tuple[Tensor, Tensor]:
    """Gradients [B, T, H, D] of sequences that are alike."""
    before = take(ctx.before, torch.tensor(rows, device=x.device), torch.float32)
    x_BHTD, q_BHTD = (z.float().transpose(1, 2).requires_grad_() for z in (x, q))
    with torch.enable_grad():
        weights = weights_in(ctx.weights, torch.float32)
        out, _ = titans_chunk_reference(x_BHTD, q_BHTD, weights, ctx.rule, (before,), positions=(at,))
        by_x, by_q = torch.autograd.grad(out, (x_BHTD, q_BHTD), grad.float().transpose(1, 2))
    return by_x.transpose(1, 2), by_q.transpose(1, 2)
