"""Prints what ptxas makes of commit's and chunk's kernels for sm_90; `python -m support.titans_variants`."""

from __future__ import annotations

import torch
from hope_kernels.layout import LinearState, LinearWeights, TitansRule
from hope_kernels.mlp_state import MlpState
from hope_kernels.titans_chunk.launch import launch_chunk
from hope_kernels.titans_commit.launch import launch_commit
from hope_kernels.titans_commit.mlp_launch import launch_mlp_commit
from support.mlp_data import mlp_weights
from support.sm90 import chosen, variants

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
COMMIT = [  # H, D, C, matrix, ring
    (16, 128, 64, F32, F32),
    (16, 128, 64, F16, F16),
    (16, 128, 16, F16, F16),
    (16, 128, 16, F16, BF16),
    (16, 128, 16, F32, BF16),
    (32, 64, 16, F16, F16),
    (32, 64, 64, F16, F16),
    (32, 64, 64, F32, F16),
    (32, 64, 16, F32, F32),
    (2, 16, 5, F16, F16),
]
MLP_COMMIT = [  # H, D, F, C, matrices, ring, weights
    (16, 128, 128, 64, F32, F16, BF16),
    (16, 128, 128, 64, F16, F16, F32),
    (16, 128, 256, 64, F16, F16, F16),
    (16, 128, 256, 64, F32, BF16, F32),
    (16, 128, 256, 64, F32, F32, F32),
    (16, 128, 128, 16, F32, F16, BF16),
    (16, 128, 64, 32, F16, F16, BF16),
    (32, 64, 64, 64, F32, F16, BF16),
    (32, 64, 128, 64, F16, F16, F32),
    (32, 64, 512, 64, F32, F32, F32),
    (32, 64, 64, 16, F16, F16, BF16),
]
CHUNK = [  # H, D, C, matrix, ring, x, weights, causal
    (16, 128, 64, F32, F16, BF16, BF16, True),
    (16, 128, 64, F16, F16, BF16, BF16, True),
    (32, 64, 64, F32, F32, F32, F32, True),
    (16, 128, 16, F32, BF16, BF16, BF16, False),
    (16, 128, 64, F16, F16, F16, F16, True),
    (16, 128, 64, F16, F16, F16, F32, True),
    (16, 128, 64, F32, F32, F32, F32, True),
    (32, 64, 64, F16, F16, F16, F16, True),
    (32, 64, 64, F32, F16, BF16, BF16, True),
]
BATCH, TOKENS = 4, 1024


def weights_and_state(heads, size, chunk, dtype, ring, weights_dtype=BF16):
    empty = lambda *shape: torch.empty(*shape, dtype=weights_dtype)
    weights = LinearWeights(
        key=empty(heads, size, size),
        value=empty(heads, size, size),
        memory=empty(heads, size, size),
        gates=empty(heads, 2, size),
        gate_bias=empty(heads, 2),
    )
    return weights, LinearState.fresh(BATCH + 1, weights, chunk, dtype=dtype, ring_dtype=ring)


def commit(heads, size, chunk, dtype, ring):
    _, state = weights_and_state(heads, size, chunk, dtype, ring)
    return variants(lambda: launch_commit(state, torch.zeros(BATCH, dtype=torch.int32)))


def mlp_commit(heads, size, hidden, chunk, dtype, ring, weights_dtype):
    weights = mlp_weights(heads, size, hidden, weights_dtype)
    state = MlpState.fresh(BATCH + 1, weights, chunk, dtype=dtype, ring_dtype=ring)
    return variants(lambda: launch_mlp_commit(weights, state, torch.zeros(BATCH, dtype=torch.int32)))


def chunk(heads, size, length, dtype, ring, x_dtype, weights_dtype, causal):
    weights, state = weights_and_state(heads, size, length, dtype, ring, weights_dtype)
    # Half of a product, as a served layer makes it.
    x = torch.empty(BATCH * TOKENS, 2 * heads, size, dtype=x_dtype)[:, :heads]
    slots, starts = torch.zeros(BATCH, dtype=torch.int32), torch.zeros(BATCH + 1, dtype=torch.int32)
    rule = TitansRule(chunk_size=length, causal=causal)
    return variants(lambda: launch_chunk(x, x, weights, rule, state, slots, starts))


OPS = (("commit", commit, COMMIT), ("mlp_commit", mlp_commit, MLP_COMMIT), ("chunk", chunk, CHUNK))


def main():
    for name, launch, cases in OPS:
        for case in chosen(cases):
            print(name, *case)
            for variant in launch(*case):
                print(name, variant)


if __name__ == "__main__":
    main()
