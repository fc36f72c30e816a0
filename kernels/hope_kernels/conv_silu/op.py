"""The public face of the convolution: refuse what is wrong, then the kernels or the reference."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_kernels.arguments import require, require_dense_rows, require_float, require_shape, require_slots
from hope_kernels.cms_delta.op import require_runs
from hope_kernels.conv_silu.reference import TAIL, WIDTH, conv_silu_reference
from hope_kernels.spans import spanned


@spanned("conv")
def conv_silu(x: Tensor, tails: Tensor, kernel: Tensor, slots: Tensor, starts: Tensor | None = None) -> Tensor:
    """y_t = silu(sum_i kernel[:, i] x_{t-3+i}) of every sequence; computed in fp32. The slots' tails move on in place.

    On a CUDA device it never waits for the host, and is differentiable once, in x; elsewhere, in fp64, and where
    ``kernel`` learns, the reference runs. What a tail holds is a constant of every gradient.

    Args:
        x: [N, d], the rows of B sequences behind each other.
        tails: [S, 3, d], a pool by slot of each sequence's last three inputs, oldest first; a view into a wider pool
            will do.
        kernel: [d, 4], the newest row's weight last.
        slots: [B] int32 or int64, all different but for 0, which has zeros behind it and remembers nothing.
        starts: [B + 1] int32, 0 first and N last: sequence b has rows starts[b] to starts[b + 1]. None: one row each.

    Returns:
        y: [N, d] in the dtype of x. On a CUDA device rows of a slot that does not exist are NaN and change nothing.

    Raises:
        ValueError: an argument does not fit.
    """
    require(x.dim() == 2 and x.numel() > 0, "x's shape", tuple(x.shape), "[N, d], all at least 1")
    for argument, tensor in (("x", x), ("tails", tails), ("kernel", kernel)):
        require_float(argument, tensor, x)
    require_shape("kernel", kernel, (x.shape[1], WIDTH), "[d, 4]")
    require_shape("tails", tails, (len(tails), TAIL, x.shape[1]), "[S, 3, d]")
    require_dense_rows("tails", tails)
    count = len(x) if starts is None else require_runs("starts", starts, x, look=not x.is_cuda)
    require_slots(slots, count, len(tails), x)
    learns = torch.is_grad_enabled() and kernel.requires_grad
    if not x.is_cuda or learns or max(t.element_size() for t in (x, tails, kernel)) > 4:
        return conv_silu_reference(x, tails, kernel, slots, starts)
    from hope_kernels.conv_silu.gradient import ConvSilu
    from hope_kernels.conv_silu.launch import launch_decode, launch_ragged

    if torch.is_grad_enabled() and x.requires_grad:
        if starts is None:
            starts = torch.arange(count + 1, dtype=torch.int32, device=x.device)
        return ConvSilu.apply(x, tails, kernel, slots, starts)  # type: ignore[no-any-return,no-untyped-call]
    if starts is None:
        return launch_decode(x, tails, kernel, slots)
    return launch_ragged(x, tails, kernel, slots, starts)
