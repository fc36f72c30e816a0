"""Prints what ptxas makes of every CMS kernel variant for sm_90; `python -m support.cms_variants`, no interpreter."""

from __future__ import annotations

from functools import partial

import torch
from hope_kernels.cms_delta import launch as delta
from hope_kernels.cms_update import LevelPools, Rows
from hope_kernels.cms_update import launch as update
from support.sm90 import chosen, variants

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
SHAPES = [  # d_in, d_out, r, rows, delta, gradient and momentum
    (2048, 8192, 16, BF16, BF16, F32),
    (8192, 2048, 32, BF16, F32, F32),
    (2048, 2048, 64, F32, F32, F32),
    (100, 77, 5, F16, F16, F16),
]
COUNT = 4  # sequences


def launch_delta(d_in, d_out, rank, rows, pool):
    slots, cu = torch.zeros(COUNT, dtype=torch.int32), torch.zeros(COUNT + 1, dtype=torch.int32)
    y, x, p = (torch.empty(COUNT, width, dtype=rows) for width in (d_out, d_in, rank))
    learned = torch.empty(COUNT + 1, d_out, rank, dtype=pool)
    delta.launch_decode(y, x, learned, torch.empty(rank, d_in, dtype=rows), slots)
    delta.launch_ragged(y, p, learned, slots, cu)
    delta.launch_backward(y, learned, slots, cu)
    delta.launch_sum(y, p, slots, cu, COUNT + 1, pool)


def launch_update(d_out, rank, rows, pool, other, momentum):
    matrix = (COUNT + 1, 1, d_out, rank)
    pools = LevelPools(
        delta=torch.empty(matrix, dtype=pool),
        gradient=torch.empty(matrix, dtype=other),
        momentum=torch.empty(matrix, dtype=other) if momentum else None,
    )
    vector = torch.empty(COUNT)
    step = update.Step(
        slots=torch.zeros(COUNT, dtype=torch.int32),
        fired=torch.zeros(COUNT, dtype=torch.bool),
        rate=vector,
        decay=vector,
        beta=0.9,
        scale=vector,
    )
    grad, p = (torch.empty(1, COUNT, width, dtype=rows) for width in (d_out, rank))
    cu = torch.zeros(COUNT + 1, dtype=torch.int32)
    update.launch_rows(pools, Rows(grad=grad, projected=p, cu_seqlens=cu), step)
    update.launch_sums(pools, torch.empty(COUNT, 1, d_out, rank), step)


def early_loads(sass):
    """Wide loads that are on their way before the wait for the projection."""
    path = sass.rsplit("ACQBULK", 1)[0]
    return path.count(".128 ") if "ACQBULK" in sass else 0


def main():
    for d_in, d_out, rank, rows, pool, other in chosen(SHAPES):
        print(f"d_in {d_in} d_out {d_out} r {rank} rows {rows} delta {pool} gradient {other}")
        calls = (
            partial(launch_delta, d_in, d_out, rank, rows, pool),
            partial(launch_update, d_out, rank, rows, pool, other, momentum=True),
            partial(launch_update, d_out, rank, rows, pool, other, momentum=False),
        )
        for variant in (v for call in calls for v in variants(call)):
            early = f" early loads {early_loads(variant.sass)}" if variant.name == "decode_kernel" else ""
            print(f"  {variant}{early}")


if __name__ == "__main__":
    main()
