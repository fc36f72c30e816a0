"""Prints what ptxas makes of every kernel between a served model's products."""

from __future__ import annotations

import torch
from hope_kernels.cms_delta import projected_launch as projected
from hope_kernels.conv_silu import launch as conv
from hope_kernels.few_rows_linear.launch import DotBlocks, launch_few_rows_linear
from hope_kernels.residual_norm.launch import launch_residual_norm, launch_residual_norm_backward
from support.sm90 import chosen, variants

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
COUNT = 4  # sequences
PROJECTED = (  # d_out, r, rows, delta
    (3072, 16, BF16, BF16),
    (2048, 32, BF16, F32),
    (2048, 64, F32, F32),
    (77, 5, F16, F16),
)
FEW_ROWS = (  # height, width, dtype
    (2048, 2048, BF16),
    (2064, 3072, BF16),
    (32000, 2048, F16),
    (77, 100, F16),
    (50, 8192, F32),
)


def norm_calls():
    for width, h, x in chosen(((2048, F32, BF16), (8192, F32, F32), (1024, BF16, BF16), (100, F16, F16))):
        rows, added = (torch.empty(COUNT, width, dtype=dtype) for dtype in (h, x))
        for given in (added, None):
            yield lambda r=rows, a=given, to=x: launch_residual_norm(r, a, torch.ones(r.shape[1]), 1e-6, to)
        for of_total, of_h in ((rows, h), (None, None)):
            given = (rows, torch.ones(width), of_total, added, 1e-6, of_h, x)
            yield lambda a=given: launch_residual_norm_backward(*a)


def conv_calls():
    for width, dtype in chosen(((2048, BF16), (8192, F32), (100, F16))):
        x, kernel = torch.empty(COUNT, width, dtype=dtype), torch.empty(width, 4, dtype=dtype)
        tails, slots = torch.empty(COUNT, 3, width, dtype=dtype), torch.zeros(COUNT, dtype=torch.int32)
        starts = torch.zeros(COUNT + 1, dtype=torch.int32)
        yield lambda a=(x, tails, kernel, slots): conv.launch_decode(*a)
        yield lambda a=(x, tails, kernel, slots, starts): conv.launch_ragged(*a)
        yield lambda a=(x, x, tails, kernel, starts): conv.launch_backward(*a)


def projected_calls():
    for d_out, rank, rows, pool in chosen(PROJECTED):
        delta, flags = torch.empty(COUNT + 1, d_out, rank, dtype=pool), torch.ones(COUNT + 1, dtype=torch.uint8)
        for count in (COUNT, 100):
            given = torch.empty(count, d_out + rank, dtype=rows)
            slots, starts = torch.zeros(count, dtype=torch.int32), torch.zeros(count + 1, dtype=torch.int32)
            yield lambda a=(given, delta, slots, "silu", flags): projected.launch_projected_decode(*a)
            yield lambda a=(given, delta, slots, starts, "none", None): projected.launch_projected_ragged(*a)
        yield lambda a=(given, delta, slots, starts, "silu", flags): projected.launch_projected_ragged(*a)


def few_rows_calls():
    for height, width, dtype in chosen(FEW_ROWS):
        for count in (1, 16):
            x, weight = torch.empty(count, width, dtype=dtype), torch.empty(height, width, dtype=dtype)
            yield lambda a=(x, weight): launch_few_rows_linear(*a, torch.float32)
    x, weight = torch.empty(2, 4096, dtype=BF16), torch.empty(64, 4096, dtype=BF16)
    for rows, stages in ((16, 4), (32, 6)):
        blocks = DotBlocks(rows=rows, deep=64, warps=4, stages=stages, prefetch_bytes=0)
        yield lambda b=blocks: launch_few_rows_linear(x, weight, BF16, b)


CALLS = {
    "few_rows_linear": few_rows_calls,
    "residual_norm": norm_calls,
    "conv_silu": conv_calls,
    "cms_delta_projected": projected_calls,
}


def main():
    for op, calls in CALLS.items():
        for variant in (variant for call in calls() for variant in variants(call)):
            print(op, variant)


if __name__ == "__main__":
    main()
