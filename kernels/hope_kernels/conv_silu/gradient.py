"""The convolution's kernels as one autograd node."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hope_kernels.conv_silu.launch import launch_backward, launch_ragged


class ConvSilu(torch.autograd.Function):
    """y = silu(conv(x)), differentiable once in x; the tails, which move on, are kept as they were."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tails: Tensor, kernel: Tensor, slots: Tensor, starts: Tensor) -> Tensor:
        """See ``conv_silu``."""
        before = tails[slots.long().clamp(0, len(tails) - 1)].masked_fill((slots == 0)[:, None, None], 0.0)
        ctx.save_for_backward(x, before, kernel, starts)
        return launch_ragged(x, tails, kernel, slots, starts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of x; the convolution is computed again rather than kept."""
        return launch_backward(grad, *ctx.saved_tensors), None, None, None, None
