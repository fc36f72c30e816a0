"""The sum and its norm as one autograd node."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hope_kernels.residual_norm.launch import launch_residual_norm, launch_residual_norm_backward


class ResidualNorm(torch.autograd.Function):
    """(h + x, its norm), differentiable once in h and x; kept: h + x."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, x: Tensor, scale: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """See ``residual_norm``."""
        total, y = launch_residual_norm(h, x, scale, eps, dtype)
        ctx.save_for_backward(total, scale)
        ctx.eps, ctx.dtypes = eps, (h.dtype, x.dtype)
        ctx.set_materialize_grads(False)
        return total, y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_total: Tensor | None, by_y: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of h and x, those that are asked for."""
        total, scale = ctx.saved_tensors
        wanted = [dtype if of else None for dtype, of in zip(ctx.dtypes, ctx.needs_input_grad[:2], strict=True)]
        if by_y is not None:
            by_h, by_x = launch_residual_norm_backward(total, scale, by_total, by_y, ctx.eps, *wanted)
            return by_h, by_x, None, None, None
        given = [None if by_total is None or dtype is None else by_total.to(dtype) for dtype in wanted]
        return given[0], given[1], None, None, None
