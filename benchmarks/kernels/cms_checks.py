"""cms_delta and cms_update against fp64 on the device that is about to be timed."""

from __future__ import annotations

from itertools import product

import torch
from hope_kernels.cms_delta import cms_delta
from hope_kernels.cms_delta.reference import cms_delta_rows_reference
from hope_kernels.cms_update import LevelPools, Rows, cms_update
from hope_kernels.cms_update.reference import cms_update_reference
from torch import Tensor

from benchmarks.kernels.bench import Bench
from benchmarks.kernels.cms_data import BF16, F32, delta_inputs, runs_of, shuffled, sides, update_inputs
from benchmarks.kernels.errors import relative
from benchmarks.kernels.table import Row

TOLERANCE = {BF16: 8e-3, F32: 2e-6}


def check_delta(bench: Bench) -> list[Row]:
    """Outputs and gradients against fp64; shuffled slots, a null slot, twice on one pool."""
    worst = {"decode": 0.0, "runs": 0.0, "dx": 0.0, "dB": 0.0}
    lengths = [100, 0, 513, 1, 64] if bench.measures else [3, 0, 7, 1, 2]
    count = min(sum(lengths), 256)
    for side, rank in product(sides(bench.sizes).values(), (16, 32)):
        y, x, delta, projection = delta_inputs(sum(lengths), 300, side, rank)
        wide = [t.double() for t in (delta, projection)]
        for _attempt in range(2):
            slots = shuffled(299)[:count]
            slots[::50] = 0
            out, rows = torch.randn_like(y[:count]), torch.randn_like(x[:count])
            expected = cms_delta_rows_reference(out.double(), rows.double(), *wide, slots, None)
            worst["decode"] = max(worst["decode"], relative(cms_delta(out, rows, delta, projection, slots), expected))
        slots, cu = slots[1:6], runs_of(lengths)
        leaves = [t.double().requires_grad_() for t in (x, delta[1:6])]
        expected = cms_delta_rows_reference(y.double(), leaves[0], leaves[1], wide[1], None, cu)
        ours = [t.clone().requires_grad_() for t in (x, delta[1:6])]
        given = cms_delta(y.clone(), ours[0], ours[1], projection, None, cu)
        grad = torch.randn_like(y)
        worst["runs"] = max(worst["runs"], relative(given.detach(), expected.detach()))
        pairs = zip(
            ("dx", "dB"),
            torch.autograd.grad(given, ours, grad),
            torch.autograd.grad(expected, leaves, grad.double()),
            strict=True,
        )
        for name, a, b in pairs:
            worst[name] = max(worst[name], relative(a, b))
        y_null = y.clone()
        cms_delta(y_null, x, delta, projection, torch.zeros_like(slots), cu)
        assert torch.equal(y_null, y), "rows of the null slot changed"
    limit = TOLERANCE[BF16]
    errors = ", ".join(f"{name} {error:.1e}" for name, error in worst.items())
    return [Row("check", "cms_delta bf16: " + errors, target=f"< {limit}", met=max(worst.values()) < limit)]


def check_update(bench: Bench) -> list[Row]:
    """Every pool against fp64, rows and sums, with and without momentum, twice on the same pools."""
    worst = 0.0
    one = torch.ones(1)
    for momentum, form in product((False, True), ("rows", "sums")):
        pools, rows = update_inputs(6, 130, bench.sizes.wide, 16, momentum=momentum)
        exact = LevelPools(**{name: tensor.double() for name, tensor in pools.tensors().items()})
        addition = rows if form == "rows" else torch.randn(6, 1, bench.sizes.wide, 16)
        for fired in ([True, False, True, True, False, True], [False, True, True, False, False, True]):
            slots = shuffled(6)
            slots[0] = 0
            due = torch.tensor(fired)
            beta = 0.9 if momentum else None
            cms_update(pools, addition, slots, due, 0.1 * one, 0.9 * one, beta=beta)
            wide = addition.double() if isinstance(addition, Tensor) else Rows(
                grad=rows.grad.double(), projected=rows.projected.double(), cu_seqlens=rows.cu_seqlens
            )  # fmt: skip
            rate, decay = (0.1 * one).double(), (0.9 * one).double()
            cms_update_reference(exact, wide, slots, due, rate, decay, beta or 0.0, None)
            worst = max(worst, *(relative(t, exact.tensors()[n]) for n, t in pools.tensors().items()))
    limit = TOLERANCE[F32]
    return [Row("check", "cms_update fp32 pools", rate=f"{worst:.1e}", target=f"< {limit}", met=worst < limit)]
