"""Figure 10: a few rows times the matrices of a served model, against bytes and beside torch's own product."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hope_kernels.few_rows_linear import few_rows_linear
from torch import Tensor

from benchmarks.kernels.bench import Bench
from benchmarks.kernels.cms_data import BF16, F32
from benchmarks.kernels.errors import relative
from benchmarks.kernels.table import Row, at_least

TOLERANCE = {BF16: 4e-3, F32: 2e-5}  # relative, by the dtype of the result
COUNTS = (1, 2, 4, 8, 16)
TARGET = 0.8  # of read bandwidth
CACHED = 400 << 20  # bytes that no cache keeps from one replay to the next

SHAPES = (  # [M, K]
    (4096, 2048),
    (2048, 2048),
    (3088, 2048),
    (2064, 3072),
    (3072, 2048),
    (2048, 3072),
    (32000, 2048),
)
TINY = ((40, 32),)


def check_few_rows(bench: Bench) -> list[Row]:
    """Every shape at every count against fp64, rounded to 16 bits and not."""
    worst = dict.fromkeys(TOLERANCE, 0.0)
    for height, width in shapes(bench):
        weight = torch.randn(height, width, dtype=BF16) / width**0.5
        for count in COUNTS:
            x = torch.randn(count, width, dtype=BF16)
            expected = x.double() @ weight.double().mT
            for dtype in worst if bench.measures or not count % 16 else (BF16,):
                worst[dtype] = max(worst[dtype], relative(few_rows_linear(x, weight, dtype), expected))
    return [check(dtype, error, bench) for dtype, error in worst.items()]


def check(dtype: torch.dtype, error: float, bench: Bench) -> Row:
    """The largest error as a row; a CPU rounds to 16 bits first."""
    limit = TOLERANCE[dtype if bench.measures else BF16]
    return Row("check", f"few_rows_linear to {dtype}", None, "", error, "relative", f"<= {limit:g}", error <= limit)


def time_few_rows(bench: Bench) -> list[Row]:
    """A chain of products with matrices of their own, each of which starts while the one before it runs."""
    rows: list[Row] = []
    for height, width in shapes(bench):
        weights = matrices(bench, height, width)
        for count in COUNTS if bench.measures else COUNTS[:2]:
            x = torch.randn(count, width, dtype=BF16)

            def kernel(x=x, weights=weights) -> None:
                for weight in weights:
                    few_rows_linear(x, weight)

            def library(x=x, weights=weights) -> None:
                for weight in weights:
                    F.linear(x, weight)

            seconds, other = (bench.replay(call) / len(weights) for call in (kernel, library))
            num_bytes = 2 * (height * width + count * (height + width))
            case = f"few_rows_linear N={count} {height} x {width}"
            rate = f"{other / seconds:.2f} x F.linear"
            rows.append(at_least("10", case, seconds, rate, num_bytes / seconds / bench.read, "of read", TARGET))
            rows.append(Row("10", case.replace("few_rows_linear", "F.linear"), other, "",
                            num_bytes / other / bench.read, "of read"))  # fmt: skip
    return rows


def shapes(bench: Bench) -> tuple[tuple[int, int], ...]:
    """[M, K] of a served model's matrices."""
    return SHAPES if bench.measures or bench.device == "cuda" else TINY


def matrices(bench: Bench, height: int, width: int) -> list[Tensor]:
    """As many as no cache holds."""
    count = max(2, CACHED // (2 * height * width)) if bench.measures else 2
    return [torch.randn(height, width, dtype=BF16) for _ in range(count)]
