"""How the convolution's kernels are launched."""

from __future__ import annotations

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor

from hope_kernels.conv_silu.conv_kernel import backward_kernel, decode_kernel, ragged_kernel, tail_kernel

DECODE_BLOCK = 512
ROWS, BLOCK = 16, 128


def launch_decode(x: Tensor, tails: Tensor, kernel: Tensor, slots: Tensor) -> Tensor:
    """One row a sequence; arguments have been checked."""
    rows, width = x.shape
    x = x if x.stride(1) == 1 else x.contiguous()
    y = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    block = min(DECODE_BLOCK, int(triton.next_power_of_2(width)))
    decode_kernel[(rows * triton.cdiv(width, block),)](
        x,
        tails,
        kernel.contiguous(),
        slots,
        y,
        x.stride(0),
        tails.stride(0),
        len(tails),
        D=width,
        BLOCK=block,
        num_warps=2,
    )
    return y


def launch_ragged(x: Tensor, tails: Tensor, kernel: Tensor, slots: Tensor, starts: Tensor) -> Tensor:
    """Runs of rows. The tails move in a launch of their own: a run's first tile may be read after its last."""
    rows, width = x.shape
    count = len(slots)
    x = x if x.stride(1) == 1 else x.contiguous()
    y = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    ragged_kernel[((rows // ROWS + count) * triton.cdiv(width, BLOCK),)](
        x,
        tails,
        kernel.contiguous(),
        slots,
        starts,
        y,
        count,
        rows,
        count.bit_length(),
        x.stride(0),
        tails.stride(0),
        len(tails),
        D=width,
        ROWS=ROWS,
        BLOCK=BLOCK,
        num_warps=4,
    )
    tail_kernel[(count * triton.cdiv(width, BLOCK),)](
        x, tails, slots, starts, x.stride(0), tails.stride(0), len(tails), D=width, BLOCK=BLOCK, num_warps=1
    )
    return y


def launch_backward(grad: Tensor, x: Tensor, before: Tensor, kernel: Tensor, starts: Tensor) -> Tensor:
    """The gradient of x; before: [B, 3, d], each sequence's tail as it was."""
    rows, width = x.shape
    count = len(before)
    x, grad = (t if t.stride(1) == 1 else t.contiguous() for t in (x, grad))
    grad_x = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    backward_kernel[((rows // ROWS + count) * triton.cdiv(width, BLOCK),)](
        grad,
        x,
        before.contiguous(),
        kernel.contiguous(),
        starts,
        grad_x,
        count,
        rows,
        count.bit_length(),
        grad.stride(0),
        x.stride(0),
        D=width,
        ROWS=ROWS,
        BLOCK=BLOCK,
        num_warps=4,
    )
    return grad_x
