"""From hidden vectors to queries, keys and values, and the inner gradient's way back."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from hope_serve.training.parts.passes.pointwise import Kernels
from hope_serve.training.parts.passes.products import outer_sum
from hope_serve.training.parts.passes.sizes import Sizes


class Heads(torch.autograd.Function):
    """h [N, T, d] to (queries [N, H, T, e], keys and values [N, K or H, T, e], h for whatever comes after)."""

    @staticmethod
    def forward(ctx: Any, sizes: Sizes, kernels: Kernels, h: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """``rest``: the norm's scale, the matrix [(H + 2 K) e, d], its bias or None, cos, sin."""
        scale, matrix, bias, cos, sin = rest
        normed = kernels.norm(h, scale, sizes.eps)
        split = kernels.split_heads(F.linear(normed, matrix, bias), cos, sin, sizes.num_key_heads, sizes.copied)
        ctx.save_for_backward(h, scale, matrix, cos, sin, normed)
        ctx.sizes, ctx.kernels = sizes, kernels
        return (*split, h.view_as(h))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, after: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of h and of the matrix."""
        h, scale, matrix, cos, sin, normed = ctx.saved_tensors
        merged = ctx.kernels.merge_heads(query, key, value, cos, sin, ctx.sizes.num_key_heads, ctx.sizes.copied)
        for_matrix = outer_sum(merged, normed) if ctx.needs_input_grad[4] else None
        for_h = None
        if ctx.needs_input_grad[2]:
            for_h = ctx.kernels.norm_adjoint(merged @ matrix, h, scale, ctx.sizes.eps, after)
        return None, None, for_h, None, for_matrix, None, None, None


class InnerHeads(torch.autograd.Function):
    """The inner gradient of h, given those of its heads and what reaches it past them."""

    @staticmethod
    def forward(ctx: Any, sizes: Sizes, kernels: Kernels, *tensors: Tensor) -> Tensor:
        """``tensors``: gradients of the three, the one past them [N, T, d]; h, the norm's scale, matrix, cos, sin."""
        query, key, value, past, h, scale, matrix, cos, sin = tensors
        merged = kernels.merge_heads(query, key, value, cos, sin, sizes.num_key_heads, sizes.copied)
        gradient = merged @ matrix
        ctx.save_for_backward(h, scale, matrix, cos, sin, merged, gradient)
        ctx.sizes, ctx.kernels = sizes, kernels
        return kernels.norm_adjoint(gradient, h, scale, sizes.eps, past)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        """Outer gradients of the first five tensors and of the matrix."""
        h, scale, matrix, cos, sin, merged, gradient = ctx.saved_tensors
        above, for_h = ctx.kernels.norm_second(outer, gradient, h, scale, ctx.sizes.eps)
        for_matrix = outer_sum(merged, above) if ctx.needs_input_grad[8] else None
        split = ctx.kernels.split_heads(F.linear(above, matrix), cos, sin, ctx.sizes.num_key_heads, ctx.sizes.copied)
        return None, None, *split, outer, for_h, None, for_matrix, None, None
