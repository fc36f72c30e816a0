"""How the cache's writing is launched."""

from __future__ import annotations

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor

from hope_kernels.cache_write.write_kernel import write_kernel

NUMBERS = 1024  # of a row, that one program takes


def launch_cache_write(
    qkv: Tensor,
    positions: Tensor,
    slots: Tensor,
    cos: Tensor,
    sin: Tensor,
    keys: Tensor,
    values: Tensor,
    bias: Tensor | None,
) -> Tensor:
    """``cache_write`` on the kernel; arguments have been checked."""
    (rows, width), (heads, size) = qkv.shape, keys.shape[2:]
    qkv = qkv if qkv.stride(1) == 1 else qkv.contiguous()
    every = width // size
    query = torch.empty(rows, every - 2 * heads, size, dtype=qkv.dtype, device=qkv.device)
    wide = int(triton.next_power_of_2(size // 2))
    together = min(int(triton.next_power_of_2(every)), max(1, NUMBERS // (2 * wide)))
    write_kernel[(rows * triton.cdiv(every, together),)](
        qkv,
        positions,
        slots,
        cos.contiguous(),
        sin.contiguous(),
        keys,
        values,
        None if bias is None else bias.contiguous(),
        query,
        min(len(cos), keys.shape[1]),
        len(keys),
        qkv.stride(0),
        keys.stride(0),
        values.stride(0),
        HEADS=heads,
        READERS=every - 2 * heads,
        HALF=size // 2,
        WIDE=wide,
        ROUND=together,
        BIASED=bias is not None,
        num_warps=2,
    )
    return query
