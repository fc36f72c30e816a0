"""Prints what ptxas makes of the kernels of attention by slot; `python -m support.attention_variants`."""

from __future__ import annotations

import torch
from hope_kernels.attention_decode.launch import launch_attention_decode
from hope_kernels.attention_prefill.launch import launch_attention_prefill
from hope_kernels.cache_write.launch import launch_cache_write
from hope_kernels.swiglu.launch import launch_swiglu, launch_swiglu_backward
from support.sm90 import chosen, variants

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
COUNT = 4  # sequences
SHAPES = (  # Hk, Hq / Hk, D, dtype
    (3, 3, 64, BF16),
    (8, 4, 128, BF16),
    (1, 8, 32, F16),
    (4, 5, 96, BF16),
    (2, 7, 64, F32),
    (2, 1, 128, F32),
    (32, 1, 64, F16),
    (1, 6, 40, BF16),
    (2, 8, 128, F16),
    (1, 2, 16, F32),
)


def pools(heads, size, dtype):
    return [torch.empty(3, 1024, heads, size, dtype=dtype) for _ in range(2)]


def decode_calls():
    numbers = torch.zeros(COUNT, dtype=torch.int32)
    for heads, group, size, dtype in chosen(SHAPES):
        query = torch.empty(COUNT, heads * group, size, dtype=dtype)
        given = (query, *pools(heads, size, dtype), numbers, numbers)
        yield lambda a=given: launch_attention_decode(*a, 1.0)


def prefill_calls():
    numbers, starts = torch.zeros(COUNT, dtype=torch.int32), torch.zeros(COUNT + 1, dtype=torch.int32)
    for heads, group, size, dtype in chosen(SHAPES):
        query = torch.empty(100, heads * group, size, dtype=dtype)
        given = (query, *pools(heads, size, dtype), numbers, starts, numbers)
        yield lambda a=given: launch_attention_prefill(*a, 1.0)


def write_calls():
    numbers = torch.zeros(COUNT, dtype=torch.int32)
    for heads, group, size, dtype in chosen(SHAPES):
        qkv = torch.empty(COUNT, (group + 2) * heads * size, dtype=dtype)
        table, bias = torch.empty(1024, size // 2), torch.empty(qkv.shape[1], dtype=dtype)
        for added in (None, bias):
            given = (qkv, numbers, numbers, table, table, *pools(heads, size, dtype), added)
            yield lambda a=given: launch_cache_write(*a)


def swiglu_calls():
    for width, dtype in chosen(((1536, BF16), (8192, F32), (100, F16))):
        gate_up = torch.empty(COUNT, 2 * width, dtype=dtype)
        yield lambda a=gate_up: launch_swiglu(a)
        yield lambda a=gate_up: launch_swiglu_backward(a, a[:, ::2])


CALLS = {
    "attention_decode": decode_calls,
    "attention_prefill": prefill_calls,
    "cache_write": write_calls,
    "swiglu": swiglu_calls,
}


def main():
    for op, calls in CALLS.items():
        for variant in (variant for call in calls() for variant in variants(call)):
            ahead, four_warps = variant.asks_for("cp.async", "LDGSTS"), variant.asks_for("wgmma", "HGMMA")
            print(f"{op} {variant} asynchronous {ahead} HGMMA {four_warps}", flush=True)


if __name__ == "__main__":
    main()
