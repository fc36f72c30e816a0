"""Figures 5 and 6: cms_delta and cms_update against bytes, and against the base products."""

from __future__ import annotations

from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from hope_kernels.cms_delta import cms_delta
from hope_kernels.cms_update import LevelPools, cms_update

from benchmarks.kernels.bench import Bench
from benchmarks.kernels.cms_data import BF16, delta_inputs, runs_of, shuffled, sides, update_floor, update_inputs
from benchmarks.kernels.table import Row, at_least, at_most

RANK = 16


class Crowd:
    """A level's shared weights and its pools in every layer, one token of each of ``batch`` sequences."""

    def __init__(self, bench: Bench, batch: int) -> None:
        self.sides, self._layers = sides(bench.sizes), bench.sizes.layers
        self.slots = shuffled(bench.sizes.users)[:batch]
        self._pools, self._weights, self._projections, self._x, self._y = {}, {}, {}, {}, {}
        for side, (d_in, d_out) in self.sides.items():
            self._pools[side] = torch.randn(bench.sizes.users + 1, self._layers, d_out, RANK, dtype=BF16)
            self._weights[side] = torch.randn(self._layers, d_out, d_in, dtype=BF16) / d_in**0.5
            self._projections[side] = torch.randn(self._layers, RANK, d_in, dtype=BF16) / d_in**0.5
            self._x[side] = torch.randn(batch, d_in, dtype=BF16)
            self._y[side] = torch.randn(batch, d_out, dtype=BF16)

    def level(self, chosen: tuple[str, ...], *, base: bool, delta: bool) -> None:
        """All layers, the shared products, or what is added to them, or both."""
        for layer, side in product(range(self._layers), chosen):
            y = F.linear(self._x[side], self._weights[side][layer]) if base else self._y[side]
            if delta:
                cms_delta(y, self._x[side], self._pools[side][:, layer], self._projections[side][layer], self.slots)


def time_decode(bench: Bench) -> list[Row]:
    """Figure 5: one token of each sequence, every layer's different pools and weights in one graph."""
    rows, both = [], ("inner", "outer")
    for batch in sorted({16, 64, bench.sizes.users}) if bench.measures else [3]:
        crowd, counts = Crowd(bench, batch), batch == bench.sizes.users
        base = bench.replay(lambda c=crowd: c.level(both, base=True, delta=False)) / bench.sizes.layers
        whole = bench.replay(lambda c=crowd: c.level(both, base=True, delta=True)) / bench.sizes.layers
        for chosen in (("inner",), ("outer",), both):
            seconds = bench.replay(lambda c=crowd, s=chosen: c.level(s, base=False, delta=True)) / bench.sizes.layers
            least = 2 * RANK * batch * sum(crowd.sides[side][1] for side in chosen)
            target = 0.75 if counts and chosen == both else None
            case, rate = f"cms_delta B={batch} {' + '.join(chosen)}", f"{least / seconds / 1e12:.2f} TB/s of B_u"
            rows.append(at_least("5", case, seconds, rate, least / seconds / bench.read, "of read", target))
        floor = f"B_u's bytes alone {least / bench.read / base:.2f}, base {base * 1e6:.1f} us"
        case, over = f"cms_delta B={batch} in the whole level", whole / base - 1
        rows.append(at_most("5", case, whole, floor, over, "over base", 0.25 if counts else None))
    return rows


def time_prefill(bench: Bench) -> list[Row]:
    """Figure 5's other half: sequences of many tokens, forward over the base products, and the backward."""
    rows, count, tokens = [], bench.sizes.learners, bench.sizes.tokens
    cu, slots = runs_of([tokens] * count), shuffled(count)
    base = whole = 0.0
    for name, side in sides(bench.sizes).items():
        d_in, d_out = side
        y, x, delta, projection = delta_inputs(count * tokens, count + 1, side, RANK)
        weight = torch.randn(d_out, d_in, dtype=BF16) / d_in**0.5
        base += bench.repeat(lambda x=x, w=weight: F.linear(x, w))
        whole += bench.repeat(
            lambda x=x, w=weight, d=delta, p=projection: cms_delta(F.linear(x, w), x, d, p, slots, cu)
        )
        add = bench.repeat(lambda x=x, y=y, d=delta, p=projection: cms_delta(y, x, d, p, slots, cu))
        least, case = 2 * (2 * y.numel() + x.numel() + delta.numel()), f"cms_delta {count} x {tokens} {name}"
        rows.append(Row("5", case, add, "", least / add / bench.copy, "of copy"))
        leaf = delta[1:].clone().requires_grad_()
        out = cms_delta(y.clone(), x.requires_grad_(), leaf, projection, None, cu)
        grad = torch.randn_like(y)
        back = bench.repeat(lambda o=out, x=x, b=leaf, g=grad: torch.autograd.grad(o, (x, b), g, retain_graph=True))
        least = 2 * (2 * grad.numel() + x.numel() + 2 * delta.numel())
        rows.append(Row("5", f"{case} backward", back, "", least / back / bench.read, "of read"))
    case = f"cms_delta {count} x {tokens} in the whole level"
    return [*rows, Row("5", case, whole, f"base {base * 1e6:.0f} us", whole / base - 1, "over base")]


def time_sums(bench: Bench) -> list[Row]:
    """Gradients that come summed: 8 layers of the inner matrix."""
    count = bench.sizes.learners
    shape = (count, 8, bench.sizes.wide, RANK)
    added, *pool = (torch.randn(shape) for _ in range(3))
    pools = LevelPools(delta=pool[0], gradient=pool[1])
    fired, vector = torch.ones(count, dtype=torch.bool), torch.rand(8)
    seconds = bench.repeat(lambda: cms_update(pools, added, None, fired, vector, vector))
    floor = 5 * 4 * added.numel() / bench.copy
    return [
        Row("6", f"cms_update of sums, {count} x 8 layers, inner, gd", seconds, "", seconds / floor, "x floor, copy")
    ]


def time_update(bench: Bench) -> list[Row]:
    """Figure 6: sequences whose chunk ends, by graph replay; and called from Python, whose checks take their time."""
    rows, total, least = [], 0.0, 0.0
    count, tokens = bench.sizes.learners, bench.sizes.tokens
    slots, fired = shuffled(count), torch.ones(count, dtype=torch.bool)
    rate, decay = torch.full((1,), 1e-3), torch.full((1,), 0.9)
    for (side, (_, d_out)), momentum in product(sides(bench.sizes).items(), (True, False)):
        pools, given = update_inputs(count, tokens, d_out, RANK, momentum=momentum)
        beta = 0.9 if momentum else None
        call = partial(cms_update, pools, given, slots, fired, rate, decay, beta=beta)
        seconds, host = bench.replay(call), bench.repeat(call)
        floor = update_floor(pools, given) / bench.read
        rule = "momentum" if momentum else "gd"
        case, called = f"cms_update {count} x {tokens} {side} {rule}", f"{host * 1e6:.0f} us from Python"
        rows.append(Row("6", case, seconds, called, seconds / floor, "x floor"))
        if not momentum:
            total, least = total + seconds, least + floor
    case = f"cms_update {count} x {tokens}, inner + outer, gd"
    return [*rows, at_most("6", case, total, "", total / least, "x floor", 1.5)]
