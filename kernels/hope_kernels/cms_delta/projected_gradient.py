"""The delta's product over projected rows as one autograd node."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hope_kernels.cms_delta.launch import launch_backward, launch_sum
from hope_kernels.cms_delta.projected_launch import launch_projected_ragged


class CmsDeltaProjected(torch.autograd.Function):
    """y + B p, differentiable once in the rows (y, p) and in the pool of B; kept: p.

    With e_t = dCE/dy_t: dCE/dp_t = B^T e_t, dCE/dB_b = sum_t e_t p_t^T. The pool's gradient is dense, [S, d_out, r].
    """

    @staticmethod
    def forward(ctx: Any, y_and_p: Tensor, delta: Tensor, slots: Tensor, starts: Tensor) -> Tensor:
        """``slots``: 0 for every sequence without a memory."""
        ctx.save_for_backward(y_and_p[:, delta.shape[1] :].contiguous(), delta, slots, starts)
        return launch_projected_ragged(y_and_p, delta, slots, starts, "none", None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the rows and of the pool, those that are asked for."""
        projected, delta, slots, starts = ctx.saved_tensors
        rows = grad if grad.stride(1) == 1 else grad.contiguous()
        of_rows = of_delta = None
        if ctx.needs_input_grad[0]:
            # In the rows' own 16 bits B's products are pipelined; what that rounds is less than the rows were.
            narrow = delta.to(rows.dtype) if rows.element_size() < delta.element_size() else delta
            back = launch_backward(rows, narrow, slots, starts).to(rows.dtype)
            of_rows = torch.cat([rows, back], 1)
        if ctx.needs_input_grad[1]:
            sums = launch_sum(rows, projected, slots, starts, len(delta), delta.dtype)
            of_delta = torch.zeros_like(delta).index_add_(0, slots.clamp(0, len(delta) - 1), sums)
        return of_rows, of_delta, None, None
