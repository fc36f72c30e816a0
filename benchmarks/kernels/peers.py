"""fla-core's kernels on inputs like ours: the wheel is looked for, and where it is missing the figure fails."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from itertools import cycle

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.kernels.bench import Bench, Mode

BF16 = torch.bfloat16


def recurrent_gated_delta_rule(
    bench: Bench, batch: int, heads: int, size: int, dtype: torch.dtype
) -> Callable[[], object]:
    """One token of every layer: one memory, read and written, its new state in fp32 whatever ``dtype`` it had."""
    from fla.ops.gated_delta_rule import fused_recurrent_gated_delta_rule

    states = [torch.randn(batch, heads, size, size).to(dtype) for _ in range(bench.sizes.layers)]
    q, k, v, g, beta = gated_rows(batch, 1, heads, size)

    def tokens() -> None:
        for state in states:
            call(bench, fused_recurrent_gated_delta_rule, q=q, k=k, v=v, g=g, beta=beta, initial_state=state,
                 output_final_state=True)  # fmt: skip

    return tokens


def chunk_gated_delta_rule(
    bench: Bench, batch: int, tokens: int, heads: int, size: int, *, backward: bool = False
) -> Callable[[], object]:
    """``batch`` sequences of ``tokens``, forward or both ways."""
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule as chunk

    sets = cycle([gated_rows(batch, tokens, heads, size) for _ in range(2)])
    start = torch.zeros(batch, heads, size, size)

    def forward() -> object:
        q, k, v, g, beta = next(sets)
        if backward:
            v.requires_grad_()
        given = call(bench, chunk, q, k, v, g, beta, initial_state=start, output_final_state=True)
        if backward and given is not None:
            torch.autograd.grad(given[0].float().sum(), v)
        return given

    return forward


def chunk_dplr(bench: Bench, batch: int, tokens: int, heads: int, size: int) -> Callable[[], object]:
    """The same tokens through a diagonal-plus-low-rank transition, which is what a decaying delta rule is."""
    from fla.ops.generalized_delta_rule import chunk_dplr_delta_rule as chunk

    q, k, v, g, beta = gated_rows(batch, tokens, heads, size)
    a, b = -k * beta[..., None], k
    gk = g[..., None].expand(-1, -1, -1, size).to(BF16).contiguous()
    start = torch.zeros(batch, heads, size, size)
    return lambda: call(bench, chunk, q, k, v, a, b, gk, initial_state=start, output_final_state=True)


def gated_rows(batch: int, tokens: int, heads: int, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """q, k, v [B, T, H, D] bf16, k of unit length; log decays and write rates [B, T, H]."""
    q, k, v = (torch.randn(batch, tokens, heads, size) for _ in range(3))
    decay = F.logsigmoid(torch.randn(batch, tokens, heads) + 6)
    return q.to(BF16), F.normalize(k, dim=-1).to(BF16), v.to(BF16), decay, torch.rand(batch, tokens, heads).to(BF16)


def call(bench: Bench, function: Callable[..., tuple[Tensor, ...]], *args: object, **kwargs: object):
    """The peer's function; a rehearsal only looks whether it takes these arguments."""
    if bench.mode is Mode.REHEARSE:
        inspect.signature(inspect.unwrap(function)).bind(*args, **kwargs)
        return None
    return function(*args, **kwargs)
