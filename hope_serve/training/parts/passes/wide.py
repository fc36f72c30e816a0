"""From mixed heads to a layer's output under a memory, and the inner gradient's way back, that of the memory included.

Down projection and A stand below one another as one matrix [d + r, F], so that one product is both.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from hope_serve.training.parts.passes.pointwise import Kernels
from hope_serve.training.parts.passes.products import outer_sum, precise_product
from hope_serve.training.parts.passes.sizes import Sizes


class Wide(torch.autograd.Function):
    """(output, middle [N, T, d], gate and up [N, T, 2 F], A's part [N, T, r]) of h and the mixed heads."""

    @staticmethod
    def forward(ctx: Any, sizes: Sizes, kernels: Kernels, *tensors: Any) -> tuple[Tensor, ...]:
        """``tensors``: h, mixed [N, T, H e], the output's matrix, norm, gate_up, down and A together, B or None."""
        h, mixed, output, scale, gate_up, down, memory = tensors
        middle, normed = kernels.added_norm(h, F.linear(mixed, output), scale, sizes.eps)
        opened = F.linear(normed, gate_up)
        wide = kernels.swiglu(opened)
        low = F.linear(wide, down)
        size = h.shape[-1]
        learned = low[..., size:].contiguous()
        out = middle + low[..., :size]
        if memory is not None:
            out.baddbmm_(learned, memory.mT)
        ctx.save_for_backward(mixed, output, scale, gate_up, down, memory, middle, normed, opened, wide, learned)
        ctx.sizes, ctx.kernels = sizes, kernels
        ctx.set_materialize_grads(False)  # most passes give the output a gradient and nothing else
        return out, middle, opened, learned

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *others: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of h, the mixed heads, the three matrices and B."""
        mixed, output, scale, gate_up, down, memory, middle, normed, opened, wide, learned = ctx.saved_tensors
        for_middle, for_opened, for_learned = others
        for_memory, low = None, gradient
        if memory is not None:
            for_memory = torch.bmm(gradient.mT, learned)
            for_learned = gradient @ memory if for_learned is None else torch.baddbmm(for_learned, gradient, memory)
        if for_learned is not None:
            low = torch.cat([gradient, for_learned], -1)
        opened_ = _opened(ctx.kernels, low @ down[: low.shape[-1]], opened, for_opened)
        reaching = [gradient] if for_middle is None else [gradient, for_middle]
        middle_ = ctx.kernels.norm_adjoint(opened_ @ gate_up, middle, scale, ctx.sizes.eps, *reaching)
        needs = ctx.needs_input_grad
        return (
            None,
            None,
            middle_,
            middle_ @ output,
            outer_sum(middle_, mixed) if needs[4] else None,
            None,
            outer_sum(opened_, normed) if needs[6] else None,
            _below(outer_sum(low, wide), down) if needs[7] else None,
            for_memory,
        )


class InnerWide(torch.autograd.Function):
    """Inner gradients of what ``Wide`` adds to and of the mixed heads [N, T, H e], given that of the output."""

    @staticmethod
    def forward(ctx: Any, sizes: Sizes, kernels: Kernels, *tensors: Any) -> tuple[Tensor, Tensor]:
        """``tensors``: gradient [N, T, d]; middle, gate and up; the output's matrix, norm, gate_up, down and A, B."""
        gradient, middle, opened, output, scale, gate_up, down, memory = tensors
        size = gradient.shape[-1]
        low = gradient if memory is None else torch.cat([gradient, gradient @ memory], -1)
        for_wide = low @ (down[:size] if memory is None else down)
        for_opened = kernels.swiglu_gradient(for_wide, opened)
        for_normed = for_opened @ gate_up
        for_middle = kernels.norm_adjoint(for_normed, middle, scale, sizes.eps, gradient)
        ctx.save_for_backward(
            gradient, middle, opened, output, scale, gate_up, down, memory,
            low, for_wide, for_opened, for_normed, for_middle,
        )  # fmt: skip
        ctx.sizes, ctx.kernels = sizes, kernels
        return for_middle, for_middle @ output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, middle_: Tensor, mixed_: Tensor) -> tuple[Tensor | None, ...]:
        """Outer gradients of the first three tensors, the three matrices and B."""
        (
            gradient, middle, opened, output, scale, gate_up, down, memory,
            low, for_wide, for_opened, for_normed, for_middle,
        ) = ctx.saved_tensors  # fmt: skip
        size, needs = gradient.shape[-1], ctx.needs_input_grad
        used = down[:size] if memory is None else down
        above, normed_, middle_2 = ctx.kernels.added_norm_second(
            middle_, F.linear(mixed_, output), for_normed, middle, scale, ctx.sizes.eps
        )
        wide_, opened_2 = ctx.kernels.swiglu_second(F.linear(normed_, gate_up), for_wide, opened)
        low_ = F.linear(wide_, used)
        for_gradient, for_memory = above + low_[..., :size], None
        if memory is not None:
            learned = low_[..., size:]
            for_gradient.baddbmm_(learned, memory.mT)
            for_memory = torch.bmm(gradient.mT, learned)
        return (
            None,
            None,
            for_gradient,
            middle_2,
            opened_2,
            outer_sum(for_middle, mixed_) if needs[5] else None,
            None,
            outer_sum(for_opened, normed_) if needs[7] else None,
            _below(outer_sum(low, wide_), down) if needs[8] else None,
            for_memory,
        )


class InnerMemory(torch.autograd.Function):
    """The inner gradient of B [N, d, r] in 32 bits, given that of the output [N, T, d] and A's part [N, T, r]."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, learned: Tensor) -> Tensor:
        """The sum over tokens of the one times the other."""
        ctx.save_for_backward(gradient, learned)
        return precise_product(gradient.mT, learned)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor]:
        """Outer gradients of both."""
        gradient, learned = ctx.saved_tensors
        narrow = outer.to(gradient.dtype)
        return torch.bmm(learned, narrow.mT), torch.bmm(gradient, narrow)


def _opened(kernels: Kernels, gradient: Tensor, gate_up: Tensor, other: Tensor | None) -> Tensor:
    if other is None:
        return kernels.swiglu_gradient(gradient, gate_up)
    return kernels.swiglu_adjoint(gradient, gate_up, other)


def _below(top: Tensor, whole: Tensor) -> Tensor:
    """A gradient of the down projection alone, with nothing for A."""
    return top if top.shape == whole.shape else F.pad(top, (0, 0, 0, len(whole) - len(top)))
