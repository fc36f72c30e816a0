"""Prints what ptxas makes of every decode kernel for sm_90; `python -m support.decode_variants`, no interpreter."""

from __future__ import annotations

import torch
from hope_kernels.layout import LinearState, LinearWeights, TitansRule
from hope_kernels.mlp_state import MlpState
from hope_kernels.titans_decode.launch import launch_decode
from hope_kernels.titans_decode.mlp_launch import launch_mlp_decode
from support.mlp_data import mlp_weights
from support.sm90 import chosen, variants

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
LINEAR = [  # B, H, D, C, matrix, ring, weights, causal
    (256, 16, 128, 64, F32, F16, BF16, True),
    (256, 32, 64, 16, F16, F16, F16, True),
    (16, 16, 128, 64, F32, F32, F32, False),
    (1, 16, 128, 64, F16, F16, BF16, True),
    (16, 16, 128, 64, F16, F16, BF16, True),
    (16, 16, 128, 64, F32, F16, BF16, True),
    (16, 32, 64, 64, F32, F16, BF16, True),
    (16, 32, 64, 64, F16, F16, F32, True),
    (1, 32, 64, 64, F32, F16, BF16, True),
]
MLP = [  # B, H, D, F, C, matrices, ring, weights, causal
    (256, 16, 128, 256, 64, F32, F32, BF16, True),
    (256, 16, 128, 128, 64, F32, F16, BF16, True),
    (256, 16, 128, 256, 64, F16, F16, BF16, True),
    (64, 16, 128, 128, 64, F16, F16, F16, True),
    (64, 16, 128, 128, 64, F16, F16, F32, True),
    (64, 32, 64, 128, 64, F32, F32, F32, True),
    (64, 32, 64, 64, 16, F16, F16, BF16, True),
    (64, 32, 64, 64, 16, F32, F16, F32, False),
]


def linear(batch, heads, size, chunk, dtype, ring, weights_dtype, causal):
    empty = lambda *shape: torch.empty(*shape, dtype=weights_dtype)
    weights = LinearWeights(
        key=empty(heads, size, size),
        value=empty(heads, size, size),
        memory=empty(heads, size, size),
        gates=empty(heads, 2, size),
        gate_bias=empty(heads, 2),
    )
    state = LinearState.fresh(3, weights, chunk, dtype=dtype, ring_dtype=ring)
    x, slots = torch.empty(batch, heads, size, dtype=BF16), torch.zeros(batch, dtype=torch.int32)
    rule = TitansRule(chunk_size=chunk, causal=causal)
    return variants(lambda: launch_decode(x, x, weights, rule, state, slots))


def mlp(batch, heads, size, hidden, chunk, dtype, ring, weights_dtype, causal):
    weights = mlp_weights(heads, size, hidden, weights_dtype)
    state = MlpState.fresh(3, weights, chunk, dtype=dtype, ring_dtype=ring)
    x, slots = torch.empty(batch, heads, size, dtype=BF16), torch.zeros(batch, dtype=torch.int32)
    rule = TitansRule(chunk_size=chunk, causal=causal)
    return variants(lambda: launch_mlp_decode(x, x, weights, rule, state, slots))


def main():
    for name, launch, cases in (("linear", linear, LINEAR), ("mlp", mlp, MLP)):
        for case in chosen(cases):
            print(name, *case)
            for variant in launch(*case):
                print(name, variant)


if __name__ == "__main__":
    main()
