"""cms_delta and cms_update on a CUDA device: checked first, then timed against bytes and against the base products.

`python -m benchmarks.kernel_cms [--sweep]`; other benchmarks call `run`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import product

import torch
import torch.nn.functional as F
from hope_kernels.cms_delta import cms_delta
from hope_kernels.cms_update import LevelPools, cms_update
from torch import Tensor
from triton.errors import TritonError
from triton.testing import do_bench

from benchmarks.kernel_cms_checks import check_delta, check_update
from benchmarks.kernel_cms_data import (
    BF16,
    LAYERS,
    SIDES,
    WIDE,
    Ceilings,
    Row,
    ceilings,
    delta_inputs,
    graph_seconds,
    runs_of,
    update_floor,
    update_inputs,
)
from benchmarks.kernel_cms_sweep import sweep_decode, sweep_ragged, sweep_update


def run(sweep: bool = False) -> list[Row]:
    """Every section, printed as it ends; one that fails leaves a row that says so, and the next one runs."""
    torch.manual_seed(0)
    bandwidth = ceilings()
    rows = [Row("read, copy bandwidth", f"{bandwidth.read / 1e12:.2f}, {bandwidth.copy / 1e12:.2f} TB/s")]
    show(rows)
    sections: list[Callable[[Ceilings], list[Row]]] = [check_delta, check_update]
    if sweep:
        sections += [sweep_decode, sweep_ragged, sweep_update]
    for section in [*sections, time_prefill, time_sums, time_decode, time_update]:
        try:
            given = section(bandwidth)
        except (RuntimeError, ValueError, AssertionError, TritonError) as error:
            given = [Row(section.__name__, f"{type(error).__name__}: {str(error)[:200]}", "runs", False)]
        show(given)
        rows += given
        torch.cuda.empty_cache()
    return rows


def show(rows: list[Row]) -> None:
    """Lines of the table."""
    for row in rows:
        verdict = "" if row.passed is None else "pass" if row.passed else "MISS"
        print(f"{row.what:<52} {row.measured:<48} {row.target:<8} {verdict}", flush=True)


def time_prefill(bandwidth: Ceilings) -> list[Row]:
    """64 sequences of 512 tokens: forward over the base products, and the backward."""
    rows, cu = [], runs_of([512] * 64)
    slots = torch.randperm(64, device="cuda").int() + 1
    base = whole = 0.0
    for side, (d_in, d_out) in SIDES.items():
        y, x, delta, projection = delta_inputs(64 * 512, 65, side, 16)
        weight = torch.randn(d_out, d_in, device="cuda", dtype=BF16) / d_in**0.5
        base += do_bench(lambda x=x, w=weight: F.linear(x, w), rep=60, return_mode="median")
        whole += do_bench(
            lambda x=x, w=weight, d=delta, p=projection: cms_delta(F.linear(x, w), x, d, p, slots, cu),
            rep=60,
            return_mode="median",
        )
        add = do_bench(
            lambda x=x, y=y, d=delta, p=projection: cms_delta(y, x, d, p, slots, cu), rep=60, return_mode="median"
        )
        size = 2 * (2 * y.numel() + x.numel() + delta.numel())
        share = size / add / 1e-3 / bandwidth.copy
        rows.append(Row(f"cms_delta 64 x 512 {side}, of copy", f"{add * 1e3:.0f} us, {share:.0%}"))
        leaf = delta[1:].clone().requires_grad_()
        out = cms_delta(y.clone(), x.requires_grad_(), leaf, projection, None, cu)
        grad = torch.randn_like(y)
        back = do_bench(
            lambda o=out, x=x, b=leaf, g=grad: torch.autograd.grad(o, (x, b), g, retain_graph=True),
            rep=60,
            return_mode="median",
        )
        size = 2 * (2 * grad.numel() + x.numel() + 2 * delta.numel())
        share = size / back / 1e-3 / bandwidth.read
        rows.append(Row(f"cms_delta 64 x 512 {side} backward, of read", f"{back * 1e3:.0f} us, {share:.0%}"))
    return [*rows, Row("over the base GEMMs, 64 x 512", f"{whole / base - 1:.0%} of {base * 1e3:.0f} us")]


def time_sums(bandwidth: Ceilings) -> list[Row]:
    """Gradients that come summed: 64 sequences, 8 layers, inner."""
    shape = (64, 8, WIDE, 16)
    added, *pool = (torch.randn(shape, device="cuda") for _ in range(3))
    pools = LevelPools(delta=pool[0], gradient=pool[1])
    fired, vector = torch.ones(64, dtype=torch.bool, device="cuda"), torch.rand(8, device="cuda")
    milliseconds = do_bench(lambda: cms_update(pools, added, None, fired, vector, vector), rep=60, return_mode="median")
    floor = 5 * 4 * added.numel() / bandwidth.copy * 1e3
    text = f"{milliseconds * 1e3:.0f} us, {milliseconds / floor:.2f} x floor (copy)"
    return [Row("cms_update of sums, 64 x 8 layers, inner, gd", text)]


def time_decode(bandwidth: Ceilings) -> list[Row]:
    """Figure 5: one token of each sequence, 24 layers' different pools and weights in one graph."""
    rows = []
    pools, weights, projections = {}, {}, {}
    for side, (d_in, d_out) in SIDES.items():
        pools[side] = torch.randn(257, LAYERS, d_out, 16, device="cuda", dtype=BF16)
        weights[side] = torch.randn(LAYERS, d_out, d_in, device="cuda", dtype=BF16) / d_in**0.5
        projections[side] = torch.randn(LAYERS, 16, d_in, device="cuda", dtype=BF16) / d_in**0.5
    for batch, target in ((16, False), (64, False), (256, True)):
        slots = torch.randperm(256, device="cuda")[:batch].int() + 1
        xs = {side: torch.randn(batch, d_in, device="cuda", dtype=BF16) for side, (d_in, _) in SIDES.items()}
        ys = {side: torch.randn(batch, d_out, device="cuda", dtype=BF16) for side, (_, d_out) in SIDES.items()}

        def level(
            base: bool,
            delta: bool,
            sides: tuple[str, ...] = tuple(SIDES),
            xs: dict[str, Tensor] = xs,
            ys: dict[str, Tensor] = ys,
            slots: Tensor = slots,
        ) -> None:
            for layer, side in product(range(LAYERS), sides):
                y = F.linear(xs[side], weights[side][layer]) if base else ys[side]
                if delta:
                    cms_delta(y, xs[side], pools[side][:, layer], projections[side][layer], slots)

        base, whole = graph_seconds(lambda f=level: f(True, False)), graph_seconds(lambda f=level: f(True, True))
        for sides in (("inner",), ("outer",), ("inner", "outer")):
            seconds = graph_seconds(lambda f=level, s=sides: f(False, True, s)) / LAYERS
            size = 2 * 16 * batch * sum(SIDES[side][1] for side in sides)
            share = size / seconds / bandwidth.read
            figure = target and len(sides) == 2
            what = f"{'figure 5: ' if figure else ''}cms_delta B={batch} {' + '.join(sides)}, of read"
            text = f"{seconds * 1e6:.1f} us, {share:.0%}"
            rows.append(Row(what, text, "75%" if figure else "", share >= 0.75 if figure else None))
        overhead, floor = whole / base - 1, size / bandwidth.read / (base / LAYERS)
        text = f"{overhead:.0%} of {base / LAYERS * 1e6:.1f} us; B_u's bytes alone {floor:.0%}"
        what = f"{'figure 5: ' if target else ''}over the base GEMMs, B={batch}"
        rows.append(Row(what, text, "25%" if target else "", overhead <= 0.25 if target else None))
    return rows


def time_update(bandwidth: Ceilings) -> list[Row]:
    """Figure 6: 64 sequences of 512 tokens whose chunk ends."""
    rows, total, least = [], 0.0, 0.0
    slots = torch.randperm(64, device="cuda").int() + 1
    fired = torch.ones(64, dtype=torch.bool, device="cuda")
    rate, decay = torch.full((1,), 1e-3, device="cuda"), torch.full((1,), 0.9, device="cuda")
    for (side, (_, d_out)), momentum in product(SIDES.items(), (True, False)):
        pools, given = update_inputs(64, 512, d_out, 16, momentum=momentum)
        beta = 0.9 if momentum else None
        milliseconds = do_bench(
            lambda p=pools, g=given, b=beta: cms_update(p, g, slots, fired, rate, decay, beta=b),
            rep=60,
            return_mode="median",
        )
        floor = update_floor(pools, given) / bandwidth.read * 1e3
        rule = "momentum" if momentum else "gd"
        text = f"{milliseconds * 1e3:.0f} us, {milliseconds / floor:.2f} x floor"
        rows.append(Row(f"cms_update 64 x 512 {side} {rule}", text))
        if not momentum:
            total, least = total + milliseconds, least + floor
    ratio = total / least
    return [*rows, Row("figure 6: cms_update, inner + outer, gd", f"{ratio:.2f} x floor", "1.5 x", ratio <= 1.5)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweep", action="store_true", help="try the candidates of every block table as well")
    run(sweep=parser.parse_args().sweep)
