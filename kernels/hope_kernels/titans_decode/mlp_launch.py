"""How decode's kernels for MLP memories are launched: block shapes by problem size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor

from hope_kernels.layout import MlpWeights, TitansRule
from hope_kernels.mlp_state import MlpState
from hope_kernels.titans_decode.launch import DOT_DTYPES
from hope_kernels.titans_decode.mlp_read_kernel import mlp_read_kernel
from hope_kernels.titans_decode.mlp_shared_kernel import mlp_append_kernel, mlp_seen_kernel


@dataclass(frozen=True)
class MlpBlocks:
    """Hidden units at a time and loads that run ahead, also of the memory that is read causally; ring rows at a time.

    prefetch: bytes of each memory's W2 that are asked for before the read may begin. registers: the most a thread may
    take; None leaves it to the compiler.
    """

    units: int
    stages: int
    causal_units: int
    causal_stages: int
    ring_rows: int
    prefetch: int
    warps: int
    registers: int | None = None


def mlp_blocks(size: int, hidden: int, element_bytes: int, ring_bytes: int = 2, weight_bytes: int = 2) -> MlpBlocks:
    """The table. ``size``: D; ``hidden``: F; bytes of an element of the matrices, the rings and the weights."""
    units = min(hidden, 32)
    shared = {"causal_units": units, "prefetch": min(8192, size * hidden * element_bytes // 4)}
    if size == 128 and element_bytes == 4:
        rows = 32 if ring_bytes == 2 else 16
        return MlpBlocks(units=units, stages=1, causal_stages=1, ring_rows=rows, warps=2, **shared)
    if size == 128:
        # Left alone, the compiler would rather spill a little than have fewer programs in flight.
        registers = 232 if hidden > size or weight_bytes == 4 else None
        units = min(hidden, 64)
        return MlpBlocks(units=units, stages=2, causal_stages=2, ring_rows=32, warps=4, registers=registers, **shared)
    if element_bytes == 4:
        return MlpBlocks(units=units, stages=2, causal_stages=1, ring_rows=32, warps=4, **shared)
    shared["causal_units"] = min(hidden, 16)
    return MlpBlocks(units=units, stages=3, causal_stages=3, ring_rows=32, warps=2, **shared)


def launch_mlp_decode(
    x: Tensor,
    q: Tensor,
    weights: MlpWeights,
    rule: TitansRule,
    state: MlpState,
    slots: Tensor | None,
    blocks: MlpBlocks | None = None,
) -> Tensor:
    """One token of B sequences on the kernels; arguments have been checked."""
    batch, heads, size = x.shape
    hidden = weights.inner.shape[2]
    x, q = x.contiguous(), q.contiguous()
    blocks = blocks or mlp_blocks(
        size, hidden, state.inner.element_size(), state.ring_k.element_size(), weights.inner.element_size()
    )
    room = max(size, hidden)
    sizes = (7 * hidden, 2 * hidden, 2 * size, 2, 8 * room)
    scratch = [torch.empty(batch, heads, each, dtype=torch.float32, device=x.device) for each in sizes]
    seen, units, wrote, raw, kept = scratch
    out = torch.empty_like(x)
    outer, bias = weights.outer.contiguous(), weights.gate_bias.contiguous()
    shape = {"H": heads, "D": size, "F": hidden, "C": rule.chunk_size, "HAS_SLOTS": slots is not None}
    lines = 16 // state.inner.element_size()
    line = {"LINE": min(size, 8 * lines), "NEAR": min(blocks.units, blocks.causal_units, lines)}
    overlap = {} if triton.knobs.runtime.interpret else {"launch_pdl": True}
    waits = {"OVERLAP": bool(overlap)}
    split = {"SPLIT": weights.inner.element_size() == 2}
    together = {"BATCH": 16 if batch <= 256 else 64, "BLOCK": min(hidden, 64)}
    groups, count = triton.cdiv(batch, together["BATCH"]), len(state.inner)
    inner_stride, outer_stride = state.inner.stride(0), state.outer.stride(0)
    narrow, gate_stride, positions = state.ring_k.stride(0), state.ring_gate.stride(0), state.position.stride(0)
    mlp_seen_kernel[(groups, heads, 7)](
        x, q, slots, state.ring_k, state.ring_v, state.position, weights.inner.contiguous(), seen,
        narrow, positions, count, batch, **shape, **together, **split, **waits, num_warps=4,
    )  # fmt: skip
    dots = state.ring_k.dtype in DOT_DTYPES
    rows = max(16 if dots else 1, min(blocks.ring_rows, triton.next_power_of_2(rule.chunk_size)))
    mlp_read_kernel[(4 * batch * heads,)](
        x, q, slots, state.inner, state.outer, state.gate_outer, state.ring_k, state.ring_v, state.ring_e,
        state.ring_u, state.ring_a, state.ring_gate, state.position, outer, weights.gate_outer.contiguous(),
        seen, units, wrote, raw, kept, out,
        inner_stride, outer_stride, state.gate_outer.stride(0), narrow, state.ring_u.stride(0), gate_stride,
        positions, count, **shape, ROOM=room, **line, BLOCK=blocks.units, STAGES=blocks.stages,
        CAUSAL_BLOCK=blocks.causal_units, CAUSAL_STAGES=blocks.causal_stages, RING_ROWS=rows, RING_DOTS=dots,
        CAUSAL=rule.causal, **waits, PREFETCH=blocks.prefetch // state.inner.element_size(),
        num_warps=blocks.warps, maxnreg=blocks.registers, **overlap,
    )  # fmt: skip
    mlp_append_kernel[(groups, heads)](
        x, slots, outer, bias, units, wrote, raw, state.ring_k, state.ring_v, state.ring_gate, state.position,
        narrow, gate_stride, positions, count, batch, rule.eta_max, rule.alpha_min,
        **shape, **together, **split, **waits, num_warps=8 if size == 128 else 4, **overlap,
    )  # fmt: skip
    return out
