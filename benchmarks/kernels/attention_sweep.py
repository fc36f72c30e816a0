"""Figure 11, candidates for the block tables of attention by slot, one row each."""

from __future__ import annotations

import torch
from hope_kernels.attention_decode.launch import PART, PartBlocks, launch_attention_decode
from hope_kernels.attention_prefill.launch import PrefillBlocks, launch_attention_prefill

from benchmarks.kernels.attention import pools, shapes
from benchmarks.kernels.bench import Bench
from benchmarks.kernels.cms_data import BF16, runs_of, shuffled
from benchmarks.kernels.table import Row

DECODE = [PartBlocks(block=b, stages=s, warps=w) for b, s, w in (
    (64, 2, 4), (64, 3, 4), (64, 4, 4), (32, 4, 4), (32, 4, 2), (64, 3, 2), (128, 2, 4), (128, 2, 8), (64, 3, 8),
)]  # fmt: skip
PROGRAMS = (1, 2, 4, 8, 16)
PREFILL = {
    64: [PrefillBlocks(rows=r, block=b, stages=s, warps=w) for r, b, s, w in (
        (64, 32, 3, 2), (64, 32, 2, 2), (32, 64, 3, 4), (32, 64, 3, 2), (32, 64, 2, 4), (32, 128, 2, 4), (32, 32, 4, 2),
    )],
    128: [PrefillBlocks(rows=r, block=b, stages=s, warps=w) for r, b, s, w in (
        (32, 64, 3, 4), (32, 64, 2, 2), (32, 32, 3, 2), (32, 64, 2, 4), (32, 128, 2, 4), (32, 32, 4, 4),
    )],
}  # fmt: skip


def sweep_decode(bench: Bench) -> list[Row]:
    """Blocks, and programs a sequence and key head, at one long history and at many."""
    rows = []
    for name, heads in shapes(bench).items():
        for count, positions in ((1, 8192), (64, 2048)) if bench.measures else ((2, 5),):
            keys, values = pools(count + 1, positions, heads)
            slots, lengths = shuffled(count).to(torch.int32), torch.full((count,), positions, dtype=torch.int32)
            given = (torch.randn(count, heads.query, heads.size, dtype=BF16), keys, values, slots, lengths, 0.1)
            num_bytes = 4 * count * positions * heads.key * heads.size
            tries = [(blocks, None) for blocks in DECODE if blocks.block <= PART] + [(None, n) for n in PROGRAMS]
            for blocks, programs in tries if bench.measures else tries[-1:]:
                seconds = bench.replay(
                    lambda blocks=blocks, programs=programs, given=given: launch_attention_decode(
                        *given, blocks, programs
                    )
                )
                case = f"attention_decode {name} B={count}: {blocks or f'{programs} programs'}"
                rows.append(Row("11", case, seconds, "", num_bytes / seconds / bench.read, "of read"))
    return rows


def sweep_prefill(bench: Bench) -> list[Row]:
    """Tiles, at one long prompt."""
    rows = []
    for name, heads in shapes(bench).items():
        tokens = 8192 if bench.measures else 5
        keys, values = pools(2, tokens, heads)
        numbers = torch.ones(1, dtype=torch.int32)
        query = torch.randn(tokens, heads.query, heads.size, dtype=BF16)
        given = (query, keys, values, numbers, runs_of([tokens]), numbers - 1, 0.1)
        work = 2 * tokens * (tokens + 1) * heads.query * heads.size
        for blocks in PREFILL.get(heads.size, PREFILL[64][-1:]):
            seconds = bench.repeat(lambda blocks=blocks, given=given: launch_attention_prefill(*given, blocks))
            rate = f"{work / seconds / 1e12:.0f} TFLOP/s"
            rows.append(Row("11", f"attention_prefill {name} 1 x {tokens}: {blocks}", seconds, rate))
    return rows
