"""The public face of the residual norm: refuse what is wrong, then the kernel or the reference."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_kernels.arguments import FLOATS, require, require_float, require_shape
from hope_kernels.residual_norm.reference import residual_norm_reference
from hope_kernels.spans import spanned

KERNEL_WIDTH = 8192


@spanned("norms")
def residual_norm(
    h: Tensor, x: Tensor | None, scale: Tensor, eps: float, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """(h + x, the same divided by its root mean square and scaled); computed in fp32.

    On a CUDA device rows of up to 8,192 run as one kernel, and are differentiable once in h and x; wider ones, fp64, a
    scale that learns and gradients without x run the reference.

    Args:
        h: [N, d], the residual stream; not changed.
        x: [N, d] of any float dtype, what a layer adds; None for the norm alone.
        scale: [d].
        eps: added to the mean square.
        dtype: of the second result; None for that of h.

    Returns:
        h + x, [N, d] in the dtype of h, or h itself without x; and y = h' / sqrt(mean(h'^2) + eps) * scale, where h'
        is the first result, rounded as it is.

    Raises:
        ValueError: an argument does not fit.

    Source: arXiv 1910.07467 (RMSNorm).
    """
    require(h.dim() == 2, "h's shape", tuple(h.shape), "[N, d]")
    for argument, tensor in (("h", h), ("x", x), ("scale", scale)):
        if tensor is not None:
            require_float(argument, tensor, h)
    if x is not None:
        require_shape("x", x, tuple(h.shape), "[N, d]")
    require_shape("scale", scale, (h.shape[1],), "[d]")
    dtype = dtype or h.dtype
    require(dtype in FLOATS, "dtype", dtype, "a float of 16, 32 or 64 bits")
    if h.is_cuda and runs_on_kernel(h, x, scale, dtype):
        from hope_kernels.residual_norm.gradient import ResidualNorm
        from hope_kernels.residual_norm.launch import launch_residual_norm

        if x is not None and _learns(h, x):
            return ResidualNorm.apply(h, x, scale, eps, dtype)  # type: ignore[no-any-return,no-untyped-call]
        return launch_residual_norm(h, x, scale, eps, dtype)
    return residual_norm_reference(h, x, scale, eps, dtype)


def runs_on_kernel(h: Tensor, x: Tensor | None, scale: Tensor, dtype: torch.dtype) -> bool:
    """Whether the kernels know this width and these dtypes, and the gradients that are asked for."""
    given = [t for t in (h, x, scale) if t is not None]
    narrow = h.shape[1] <= KERNEL_WIDTH and all(t.element_size() <= 4 for t in given) and dtype.itemsize <= 4
    return narrow and h.numel() > 0 and not (_learns(scale) or (x is None and _learns(h)))


def _learns(*given: Tensor) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in given)
