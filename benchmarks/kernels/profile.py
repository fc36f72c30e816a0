"""One op a few times at the size its target speaks of, for a profiler to look at.

ncu --clock-control none --set full -k regex:read_kernel -c 2 python -m benchmarks.kernels.profile titans_decode
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from benchmarks.kernels import chunk, commit, decode, mlp
from benchmarks.kernels.bench import Bench, Mode, Sizes
from benchmarks.kernels.cms import Crowd, time_update
from benchmarks.kernels.mlp_data import mlp_layers
from benchmarks.kernels.titans_data import layers


def titans_decode(bench: Bench) -> None:
    """fp32 and fp16 matrices at B = 256."""
    for shape in decode.shapes(bench, 64)[:2]:
        decode.decode_layers(layers(2, 256, shape, 32), 32)


def titans_commit(bench: Bench) -> None:
    """All of 256 rings."""
    for shape in decode.shapes(bench, 64)[:2]:
        commit.commit_seconds(bench, layers(2, 256, shape, 64), 1)


def titans_chunk(bench: Bench) -> None:
    """8 x 4096, and one sequence of 64k."""
    shape = chunk.shapes(bench)[0]
    chunk.forward_seconds(bench, shape, 8, 4096, backward=True)
    chunk.forward_seconds(bench, shape, 1, bench.sizes.long)


def titans_mlp(bench: Bench) -> None:
    """Hidden 1 x at B = 64: a token, and all of the rings."""
    for shape in mlp.shapes(bench)[:2]:
        given = mlp_layers(2, 64, shape)
        mlp.decode_layers(given)
        mlp.commit_seconds(bench, given, 1)


def cms(bench: Bench) -> None:
    """A level's deltas for 256 sequences, and 64 updates of 512 tokens."""
    Crowd(bench, bench.sizes.users).level(("inner", "outer"), base=True, delta=True)
    time_update(bench)


OPS: dict[str, Callable[[Bench], None]] = {
    op.__name__: op for op in (titans_decode, titans_commit, titans_chunk, titans_mlp, cms)
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("op", choices=sorted(OPS))
    torch.set_default_device("cuda")
    torch.manual_seed(0)
    OPS[parser.parse_args().op](Bench(mode=Mode.WARM, sizes=Sizes(layers=2, shapes=Sizes().shapes[:1])))
    torch.cuda.synchronize()
