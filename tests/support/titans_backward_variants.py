"""Prints what ptxas makes of chunk's backward for sm_90; `python -m support.titans_backward_variants`."""

from __future__ import annotations

import torch
from hope_kernels.layout import TitansRule
from hope_kernels.titans_chunk.backward import launch_backward
from hope_kernels.titans_chunk.launch import Chunks, tile_rows
from support.sm90 import chosen, variants
from support.titans_variants import BATCH, BF16, F16, F32, TOKENS, weights_and_state

CASES = [  # H, D, C, x, weights, causal
    (16, 128, 64, BF16, BF16, True),
    (16, 128, 64, F32, BF16, False),
    (16, 128, 16, BF16, BF16, True),
    (32, 64, 64, F32, F32, True),
    (32, 64, 64, F16, BF16, False),
    (16, 128, 64, F32, F32, True),
    (16, 128, 64, F16, F16, True),
    (32, 64, 64, BF16, BF16, True),
]


def backward(heads, size, length, x_dtype, weights_dtype, causal, warps=None):
    weights, _ = weights_and_state(heads, size, length, F32, F16, weights_dtype)
    x = torch.empty(BATCH * TOKENS, heads, size, dtype=x_dtype)
    count = len(x) // length + 2 * BATCH
    tile = torch.empty(count, heads, tile_rows(size, length), size, dtype=F16)
    chunks = Chunks(
        span=torch.empty(count, 3, dtype=torch.int32),
        keys=tile,
        writes=tile,
        frozen=torch.empty(count, heads, size, size, dtype=F16),
        gates=torch.empty(count, heads, 7, tile.shape[2]),
    )
    rule = TitansRule(chunk_size=length, causal=causal)
    starts = torch.zeros(BATCH + 1, dtype=torch.int32)
    return variants(lambda: launch_backward(x, x, x, weights, rule, chunks, starts, BATCH))


def main():
    for case in chosen(CASES):
        print("backward", *case)
        for variant in backward(*case):
            print("   ", variant)


if __name__ == "__main__":
    main()
