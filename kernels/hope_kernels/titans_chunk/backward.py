"""How the kernels of chunk's backward are launched: warps by problem size, the least that compile without spills."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from hope_kernels.layout import LinearWeights, TitansRule
from hope_kernels.titans_chunk.backward_read_kernel import backward_read_kernel, scale_kernel
from hope_kernels.titans_chunk.backward_solve_kernel import backward_solve_kernel
from hope_kernels.titans_chunk.backward_write_kernel import backward_write_kernel
from hope_kernels.titans_chunk.launch import Chunks, narrow

# Programs of the solving kernel: what they work in stays in L2.
SOLVERS = 528


@dataclass(frozen=True)
class BackwardWarps:
    """Warps of a program of each kernel."""

    read: int
    solve: int
    write: int


@dataclass(frozen=True)
class Adjoint:
    """What the parallel kernels leave for the one that goes from chunk to chunk; fp16 tiles [G, H, T, D].

    scale: [G, H], what all gradients in here are multiplied by. query, answer: unit queries with their decay, and the
    gradient of what they read; by_keys, by_rows: what the outputs alone add; later: [G, H, T], of the log decays;
    values, v_scale: v, and [G, H, T] one over its norm; rows: p; reach: from the next snapshot to the rows.
    """

    scale: Tensor
    query: Tensor
    answer: Tensor
    by_keys: Tensor
    by_rows: Tensor
    later: Tensor
    values: Tensor
    v_scale: Tensor
    rows: Tensor
    reach: Tensor


def backward_warps(size: int) -> BackwardWarps:
    """The table. ``size``: D."""
    return BackwardWarps(read=8 if size == 128 else 4, solve=8 if size == 128 else 4, write=8 if size == 128 else 4)


def launch_backward(
    x: Tensor,
    q: Tensor,
    grad: Tensor,
    weights: LinearWeights,
    rule: TitansRule,
    chunks: Chunks,
    starts: Tensor | None,
    batch: int,
) -> tuple[Tensor, Tensor]:
    """Gradients of x and q in their dtypes, [N, H, D], from that of the output and what the forward left.

    Args:
        batch: B, sequences; ``starts`` is as for ``titans_chunk``.
    """
    warps = backward_warps(x.shape[-1])
    x, q, grad = x.contiguous(), q.contiguous(), grad.contiguous()
    by_x, by_q = torch.empty_like(x), torch.empty_like(q)
    adjoint = _empty_adjoint(chunks, rule.causal)
    count, heads, rows, size = chunks.keys.shape
    shape = {"H": heads, "D": size}
    length = len(x) // batch
    scale_kernel[(batch * heads,)](grad, starts, adjoint.scale, length, **shape, C=rule.chunk_size, num_warps=8)
    recorded = vars(chunks)
    shape["T"] = rows
    backward_read_kernel[(count, heads)](
        q,
        grad,
        narrow(weights.memory).contiguous(),
        *recorded.values(),
        adjoint.scale,
        by_q,
        by_x,
        adjoint.query,
        adjoint.answer,
        adjoint.by_keys,
        adjoint.by_rows,
        adjoint.later,
        rule.eta_max,
        **shape,
        CAUSAL=rule.causal,
        num_warps=warps.read,
    )
    key, value = narrow(weights.key).contiguous(), narrow(weights.value).contiguous()
    shape |= {"C": rule.chunk_size, "CAUSAL": rule.causal}
    solvers = min(SOLVERS, count * heads)
    backward_solve_kernel[(solvers,)](
        x,
        value,
        chunks.span,
        chunks.keys,
        chunks.frozen,
        chunks.gates,
        adjoint.values,
        adjoint.v_scale,
        adjoint.rows,
        adjoint.reach,
        adjoint.by_rows,
        torch.empty(solvers, 2, rows, rows, device=x.device),
        count,
        **shape,
        num_warps=warps.solve,
    )
    backward_write_kernel[(batch * heads,)](
        x,
        starts,
        key,
        value,
        weights.gates.contiguous(),
        *recorded.values(),
        *vars(adjoint).values(),
        by_x,
        torch.empty(batch * heads, size, size, device=x.device),
        torch.empty(batch * heads, size, size, dtype=torch.float16, device=x.device),
        torch.empty(batch * heads, 3, rows, device=x.device),
        length,
        rule.eta_max,
        rule.alpha_min,
        **shape,
        num_warps=warps.write,
    )
    return by_x, by_q


def _empty_adjoint(chunks: Chunks, causal: bool) -> Adjoint:
    tile = partial(torch.empty_like, chunks.keys)
    count, heads, rows, _ = chunks.keys.shape
    vector = partial(torch.empty, device=chunks.keys.device)
    return Adjoint(
        scale=vector(count, heads),
        query=tile(),
        answer=tile(),
        by_keys=tile(),
        # The kernel that goes back through the chunks adds to these whether or not outputs read rows.
        by_rows=tile() if causal else torch.zeros_like(chunks.keys),
        later=vector(count, heads, rows),
        values=tile(),
        v_scale=vector(count, heads, rows),
        rows=tile(),
        reach=tile(),
    )
