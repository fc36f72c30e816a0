"""How decode's kernels for MLP memories are launched: block shapes by problem size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor

from hope_kernels.layout import MlpWeights, TitansRule
from hope_kernels.mlp_state import MlpState
from hope_kernels.titans_decode.mlp_causal_kernel import mlp_causal_kernel
from hope_kernels.titans_decode.mlp_read_kernel import mlp_read_kernel
from hope_kernels.titans_decode.mlp_shared_kernel import mlp_append_kernel, mlp_seen_kernel


@dataclass(frozen=True)
class MlpBlocks:
    """Hidden units at a time, loads that run ahead, warps; units and warps of the memory that is read causally."""

    units: int
    stages: int
    warps: int
    causal_units: int
    causal_warps: int


def mlp_blocks(size: int, hidden: int, element_bytes: int) -> MlpBlocks:
    """The table. ``size``: D; ``hidden``: F; ``element_bytes`` of the matrices."""
    units = min(hidden, 64 // element_bytes)
    return MlpBlocks(units=units, stages=3, warps=4, causal_units=16, causal_warps=8 if size == 128 else 4)


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
    blocks = blocks or mlp_blocks(size, hidden, state.inner.element_size())
    sizes = (7 * hidden, 2 * hidden, 2 * size, 2, 4 * hidden)
    scratch = [torch.empty(batch, heads, each, dtype=torch.float32, device=x.device) for each in sizes]
    seen, units, wrote, raw, kept = scratch
    out = torch.empty_like(x)
    outer, bias = weights.outer.contiguous(), weights.gate_bias.contiguous()
    shape = {"H": heads, "D": size, "F": hidden, "C": rule.chunk_size, "HAS_SLOTS": slots is not None}
    loop = {"BLOCK": blocks.units, "STAGES": blocks.stages, "num_warps": blocks.warps}
    split = {"SPLIT": weights.inner.element_size() == 2}
    together = {"BATCH": 16 if batch <= 256 else 64, "BLOCK": min(hidden, 64)}
    groups, count = triton.cdiv(batch, together["BATCH"]), len(state.inner)
    inner_stride, outer_stride = state.inner.stride(0), state.outer.stride(0)
    narrow, gate_stride, positions = state.ring_k.stride(0), state.ring_gate.stride(0), state.position.stride(0)
    mlp_seen_kernel[(groups, heads, 7)](
        x, q, slots, state.ring_k, state.ring_v, state.position, weights.inner.contiguous(), seen,
        narrow, positions, count, batch, **shape, **together, **split, num_warps=4,
    )  # fmt: skip
    if rule.causal:
        causal = loop | {"BLOCK": blocks.causal_units, "num_warps": blocks.causal_warps}
        mlp_causal_kernel[(batch * heads,)](
            q, slots, state.inner, state.outer, state.ring_k, state.ring_v, state.ring_e, state.ring_u, state.ring_a,
            state.ring_gate, state.position, outer, seen, kept, out, inner_stride, outer_stride, narrow,
            state.ring_u.stride(0), gate_stride, positions, count,
            **shape, **causal, ROWS=max(16, triton.next_power_of_2(rule.chunk_size)),
        )  # fmt: skip
    mlp_read_kernel[(batch * heads, 3 if rule.causal else 4)](
        x, q, slots, state.inner, state.outer, state.gate_outer, state.position, outer,
        weights.gate_outer.contiguous(), seen, units, wrote, raw, out,
        inner_stride, outer_stride, state.gate_outer.stride(0), positions, count, **shape, **loop,
    )  # fmt: skip
    mlp_append_kernel[(groups, heads)](
        x, slots, outer, bias, units, wrote, raw, state.ring_k, state.ring_v, state.ring_gate, state.position,
        narrow, gate_stride, positions, count, batch, rule.eta_max, rule.alpha_min,
        **shape, **together, **split, num_warps=8 if size == 128 else 4,
    )  # fmt: skip
    return out
