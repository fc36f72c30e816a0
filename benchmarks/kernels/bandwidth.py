"""What the device's memory gives: read once, and copied."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from benchmarks.kernels.bench import Bench
from benchmarks.kernels.table import Row


@triton.jit
def read_kernel(x_ptr, out_ptr, BLOCK: tl.constexpr):
    """Reads BLOCK numbers a program."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.sum(tl.load(x_ptr + at, eviction_policy="evict_first"), 0)
    if total == 12345.678:
        tl.store(out_ptr, total)


def measure_bandwidth(bench: Bench) -> list[Row]:
    """Of 4 GiB; sets ``bench.read`` and ``bench.copy``."""
    x = torch.randn(1 << 30 if bench.measures else 1 << 14)
    out = torch.empty(1)
    read = min(
        bench.repeat(lambda b=b: read_kernel[(x.numel() // b,)](x, out, BLOCK=b, num_warps=4)) for b in (4096, 8192)
    )
    half = x.numel() // 2
    copy = bench.repeat(lambda: x[:half].copy_(x[half:]))
    if bench.measures:
        bench.read, bench.copy = 4 * x.numel() / read, 4 * x.numel() / copy
    return [
        Row("0", "read bandwidth, 4 GiB", read, f"{bench.read / 1e12:.2f} TB/s"),
        Row("0", "copy bandwidth, 2 GiB to 2 GiB", copy, f"{bench.copy / 1e12:.2f} TB/s"),
    ]
