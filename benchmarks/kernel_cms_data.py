"""What the CMS benchmarks share: inputs, ceilings of the device, rows of the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from hope_kernels.cms_update import LevelPools, Rows
from torch import Tensor
from triton.testing import do_bench

BF16, F32 = torch.bfloat16, torch.float32
WIDTH, WIDE, LAYERS = 2048, 8192, 24
SIDES = {"inner": (WIDTH, WIDE), "outer": (WIDE, WIDTH)}


@dataclass(frozen=True)
class Row:
    """One line of the table; ``passed`` None where no target was set."""

    what: str
    measured: str
    target: str = ""
    passed: bool | None = None


@dataclass(frozen=True)
class Ceilings:
    """Measured read and copy bandwidth, bytes a second."""

    read: float
    copy: float


@triton.jit
def read_kernel(x_ptr, out_ptr, BLOCK: tl.constexpr):
    """Reads BLOCK numbers a program."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.sum(tl.load(x_ptr + at, eviction_policy="evict_first"), 0)
    if total == 12345.678:
        tl.store(out_ptr, total)


def ceilings() -> Ceilings:
    """Of 4 GiB, read once, and copied."""
    x = torch.randn(1 << 30, device="cuda")
    out = torch.empty(1, device="cuda")
    read = min(
        do_bench(lambda b=b: read_kernel[(x.numel() // b,)](x, out, BLOCK=b, num_warps=4), return_mode="median")
        for b in (4096, 8192)
    )
    half = x.numel() // 2
    copy = do_bench(lambda: x[:half].copy_(x[half:]), return_mode="median")
    return Ceilings(read=4 * x.numel() / read * 1e3, copy=4 * x.numel() / copy * 1e3)


def graph_seconds(call: Callable[[], None]) -> float:
    """Median seconds of a replay."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return do_bench(graph.replay, warmup=10, rep=60, return_mode="median") * 1e-3


def relative(given: Tensor, expected: Tensor) -> float:
    """|given - expected| / |expected|; NaN counts as infinitely wrong."""
    error = ((given.double() - expected).norm() / expected.norm()).item()
    return error if error == error else float("inf")


def delta_inputs(rows: int, slots: int, side: str, rank: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, x, a pool whose null slot is NaN, and the projection; bf16."""
    d_in, d_out = SIDES[side]
    y, x = (torch.randn(rows, width, device="cuda", dtype=BF16) for width in (d_out, d_in))
    delta = torch.randn(slots, d_out, rank, device="cuda", dtype=BF16) / rank**0.5
    delta[0] = torch.nan
    return y, x, delta, torch.randn(rank, d_in, device="cuda", dtype=BF16) / d_in**0.5


def runs_of(lengths: list[int]) -> Tensor:
    """cu_seqlens."""
    return torch.tensor([0, *lengths], device="cuda").cumsum(0).to(torch.int32)


def update_inputs(
    sequences: int, tokens: int, d_out: int, rank: int, *, momentum: bool = False
) -> tuple[LevelPools, Rows]:
    """fp32 pools of one slot more than sequences, and bf16 rows."""
    pools = LevelPools(
        delta=torch.randn(sequences + 1, 1, d_out, rank, device="cuda"),
        gradient=torch.randn(sequences + 1, 1, d_out, rank, device="cuda"),
        momentum=torch.randn(sequences + 1, 1, d_out, rank, device="cuda") if momentum else None,
    )
    rows = Rows(
        grad=torch.randn(1, sequences * tokens, d_out, device="cuda", dtype=BF16),
        projected=torch.randn(1, sequences * tokens, rank, device="cuda", dtype=BF16),
        cu_seqlens=runs_of([tokens] * sequences),
    )
    return pools, rows


def update_floor(pools: LevelPools, rows: Rows) -> int:
    """Bytes that must move: the rows once, every fired pool once each way."""
    matrices = sum(2 * t[1:].numel() * t.element_size() for t in pools.tensors().values())
    return matrices + 2 * (rows.grad.numel() + rows.projected.numel())
