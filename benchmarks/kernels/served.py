"""Figure 9: what a served layer runs between its products, against bytes; every layer's tensors in one graph."""

from __future__ import annotations

import torch
from hope_kernels.cms_delta import cms_delta_projected
from hope_kernels.cms_delta.projected_reference import cms_delta_projected_reference
from hope_kernels.conv_silu import conv_silu
from hope_kernels.conv_silu.reference import conv_silu_reference
from hope_kernels.residual_norm import residual_norm
from hope_kernels.residual_norm.reference import residual_norm_reference

from benchmarks.kernels.bench import Bench
from benchmarks.kernels.cms_data import BF16, F32, runs_of, shuffled
from benchmarks.kernels.errors import relative
from benchmarks.kernels.table import Row, at_least

TOLERANCE = 8e-3  # bf16, relative
RANK = 16
NARROW, WIDE = 2048, 3072  # a level's two sides
EPS = 1e-6


def widths(bench: Bench) -> tuple[int, int]:
    """A level's two sides."""
    return (NARROW, WIDE) if bench.measures else (bench.sizes.width, bench.sizes.wide)


def check_served(bench: Bench) -> list[Row]:
    """Each op against fp64: one row a sequence and runs, null slots among them, twice on one pool."""
    lengths = [100, 0, 513, 1, 64] if bench.measures else [3, 0, 7, 1, 2]
    width, worst = widths(bench)[0], dict.fromkeys(("residual_norm", "conv_silu", "cms_delta_projected"), 0.0)
    for _ in range(2):
        h, x, scale = torch.randn(65, width), torch.randn(65, width, dtype=BF16), torch.rand(width)
        expected = residual_norm_reference(h.double(), x.double(), scale.double(), EPS, torch.float64)[1]
        note(worst, "residual_norm", residual_norm(h, x, scale, EPS, BF16)[1], expected)
        tails, kernel = (torch.randn(*shape, dtype=BF16) for shape in ((sum(lengths) + 2, 3, width), (width, 4)))
        pool = torch.randn(sum(lengths) + 2, width, RANK, dtype=BF16)
        for cu in (None, runs_of(lengths)):
            slots = shuffled(sum(lengths) + 1)[: sum(lengths) if cu is None else len(lengths)]
            slots[::3] = 0
            x = torch.randn(sum(lengths), width, dtype=BF16)
            before = tails.double()
            expected = conv_silu_reference(x.double(), before, kernel.double(), slots, cu)
            note(worst, "conv_silu", conv_silu(x, tails, kernel, slots, cu), expected)
            note(worst, "conv_silu", tails, before)
            rows = torch.randn(sum(lengths), width + RANK, dtype=BF16)
            wide = (rows.double(), pool.double(), slots, cu)
            expected = cms_delta_projected_reference(*wide, "silu", None)
            given = cms_delta_projected(rows, pool, slots, cu, activation="silu")
            note(worst, "cms_delta_projected", given, expected)
    return [
        Row("check", f"{op} against fp64", None, "", error, "relative", f"<= {TOLERANCE:g}", error <= TOLERANCE)
        for op, error in worst.items()
    ]


def note(worst: dict[str, float], op: str, given: torch.Tensor, expected: torch.Tensor) -> None:
    """Keep an op's largest error."""
    worst[op] = max(worst[op], relative(given, expected))


def time_projected(bench: Bench) -> list[Row]:
    """cms_delta_projected, one token of each of B different sequences, and without memories."""
    rows, layers = [], bench.sizes.layers
    for count in sorted({1, 64, bench.sizes.users}) if bench.measures else [3]:
        seconds, least, slots = 0.0, 0, shuffled(count)
        for width in widths(bench):
            pool = torch.randn(bench.sizes.users + 1, layers, width, RANK, dtype=BF16)
            given = torch.randn(layers, count, width + RANK, dtype=BF16)
            for remembers in (torch.ones(len(pool), dtype=torch.uint8), torch.zeros(len(pool), dtype=torch.uint8)):

                def run(given=given, pool=pool, remembers=remembers, slots=slots) -> None:
                    for layer in range(layers):
                        rows = given[layer]
                        cms_delta_projected(rows, pool[:, layer], slots, activation="silu", remembers=remembers)

                once = bench.replay(run) / layers
                reads = bool(remembers.any())
                num_bytes = (2 * RANK * width * reads + 4 * width) * count
                case = f"cms_delta_projected B={count} d_out={width}{'' if reads else ', no memories'}"
                rows.append(Row("9", case, once, "", num_bytes / once / bench.read, "of read, all bytes"))
                seconds, least = seconds + once * reads, least + 2 * RANK * width * count * reads
        case, target = f"cms_delta_projected B={count} both sides", 0.75 if count == bench.sizes.users else None
        rate = f"{least / seconds / 1e12:.2f} TB/s of B_u"
        rows.append(at_least("9", case, seconds, rate, least / seconds / bench.read, "of read", target))
    return rows


def time_norm_and_conv(bench: Bench) -> list[Row]:
    """residual_norm of an fp32 stream and 16-bit rows, and conv_silu of one row a sequence."""
    rows, layers, width = [], bench.sizes.layers, widths(bench)[0]
    for count in sorted({1, 64, bench.sizes.users}) if bench.measures else [3]:
        h, scale = torch.randn(layers, count, width), torch.rand(layers, width)
        x = torch.randn(layers, count, width, dtype=BF16)

        def norm(h=h, x=x, scale=scale) -> None:
            for layer in range(layers):
                residual_norm(h[layer], x[layer], scale[layer], EPS, BF16)

        tails = torch.randn(count + 1, layers, 3, width, dtype=BF16)
        kernel, slots = torch.randn(layers, width, 4, dtype=BF16), shuffled(count)

        def conv(x=x, tails=tails, kernel=kernel, slots=slots) -> None:
            for layer in range(layers):
                conv_silu(x[layer], tails[:, layer], kernel[layer], slots)

        for name, call, num_bytes in (("residual_norm", norm, 12), ("conv_silu", conv, 16)):
            seconds = bench.replay(call) / layers
            floor = num_bytes * count * width / bench.copy
            rows.append(Row("9", f"{name} B={count} d={width}", seconds, "", floor / seconds, "of copy"))
    return rows


def time_prefill(bench: Bench) -> list[Row]:
    """The same over runs of rows."""
    rows, width = [], widths(bench)[1]
    count, tokens = (8, 2048) if bench.measures else (2, 5)
    cu, slots = runs_of([tokens] * count), shuffled(count)
    x, kernel = torch.randn(count * tokens, width, dtype=BF16), torch.randn(width, 4, dtype=BF16)
    tails = torch.randn(count + 1, 3, width, dtype=BF16)
    given = torch.randn(count * tokens, width + RANK, dtype=BF16)
    pool = torch.randn(count + 1, width, RANK, dtype=BF16)
    h, scale = torch.randn(count * tokens, width, dtype=F32), torch.rand(width)
    for name, call, num_bytes in (
        ("conv_silu", lambda: conv_silu(x, tails, kernel, slots, cu), 4),
        ("cms_delta_projected", lambda: cms_delta_projected(given, pool, slots, cu, activation="silu"), 4),
        ("residual_norm", lambda: residual_norm(h, x, scale, EPS, BF16), 12),
    ):
        seconds = bench.repeat(call)
        floor = num_bytes * x.numel() / bench.copy
        rows.append(Row("9", f"{name} {count} x {tokens}, d={width}", seconds, "", floor / seconds, "of copy"))
    return rows
