"""The delta's kernels as one autograd node: gradients of the rows, the deltas and the projection."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hope_kernels.cms_delta.launch import launch_backward, launch_ragged, launch_sum


class CmsDelta(torch.autograd.Function):
    """y += (x A^T) B^T in place, differentiable once.

    With e_t = dCE/dy_t and p_t = A x_t: dCE/dy passes through, dCE/dB_b = sum_t e_t p_t^T, dCE/dp_t = B^T e_t,
    dCE/dx_t = A^T dCE/dp_t, dCE/dA = sum_t dCE/dp_t x_t^T. Of the rows only p and, for dCE/dA, x are kept.
    """

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, x: Tensor, delta: Tensor, projection: Tensor, slots: Tensor | None, cu_seqlens: Tensor
    ) -> Tensor:
        """See ``cms_delta``."""
        projected = x @ projection.mT
        launch_ragged(y, projected, delta, slots, cu_seqlens)
        ctx.mark_dirty(y)
        ctx.save_for_backward(projected, delta, projection, slots, cu_seqlens, x if projection.requires_grad else None)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of y, x, delta and projection, those that are asked for."""
        projected, delta, projection, slots, cu_seqlens, x = ctx.saved_tensors
        of_y, of_x, of_delta, of_projection = ctx.needs_input_grad[:4]
        rows = grad if grad.stride(1) == 1 else grad.contiguous()
        grad_x = grad_delta = grad_projection = None
        if of_x or of_projection:
            back = launch_backward(rows, delta, slots, cu_seqlens).to(projection.dtype)
            grad_x = back @ projection if of_x else None
            grad_projection = back.mT @ x if of_projection else None
        if of_delta:
            grad_delta = launch_sum(rows, projected, slots, cu_seqlens, len(delta), delta.dtype)
            if slots is not None:
                owners = slots.clamp(0, len(delta) - 1)
                grad_delta = torch.zeros_like(delta).index_add_(0, owners, grad_delta)
        return grad if of_y else None, grad_x, grad_delta, grad_projection, None, None
