"""Random MLP memories and pools whose slots stand at different places in their chunks."""

from __future__ import annotations

import torch
from hope_kernels.layout import MlpWeights
from hope_kernels.mlp_state import MlpState
from hope_kernels.pool import put, weights_in
from hope_kernels.titans_chunk.mlp_rows import mlp_state_of
from hope_kernels.titans_chunk.reference_memories import fresh_memories, titans_chunk_memories_reference


def mlp_weights(heads, size, hidden, dtype=torch.float32, device="cpu"):
    """Memories that write and retain, as a trained model's do."""
    weights = MlpWeights(
        inner=torch.randn(heads, 5, hidden, size) / size**0.5,
        outer=0.5 * torch.randn(heads, 3, size, hidden) / hidden**0.5,
        gate_outer=torch.randn(heads, 2, hidden) / hidden**0.5,
        gate_bias=torch.tensor([0.0, 3.0]) + 0.3 * torch.randn(heads, 2),
    )
    return type(weights)(**{name: tensor.to(device) for name, tensor in vars(weights_in(weights, dtype)).items()})


def mlp_pool(weights, rule, positions, *, chunks=2, dtype=torch.float32, ring_dtype=None):
    """A pool with slot b + 1 at ``positions[b]`` after ``chunks`` whole chunks; slot 0 is NaN throughout."""
    heads, _, _, size = weights.inner.shape
    wide, device = weights_in(weights, torch.float64), weights.inner.device
    keep = dtype if dtype is not torch.bfloat16 else torch.float32
    state = MlpState.fresh(len(positions) + 1, weights, rule.chunk_size, dtype=keep, ring_dtype=ring_dtype or dtype)
    for slot, at in enumerate(positions, 1):
        tokens = chunks * rule.chunk_size + at
        x, q = torch.randn(2, 1, heads, max(tokens, 1), size, dtype=torch.float64, device=device)[..., :tokens, :]
        clocks = fresh_memories(1, wide, rule)
        if tokens:
            _, clocks = titans_chunk_memories_reference(x, q, wide, rule, clocks, positions=(0,))
        put(state, torch.tensor([slot], device=device), mlp_state_of(clocks[0], wide, rule))
    for name, tensor in state.tensors().items():
        if name != "position":
            tensor[0] = torch.nan
    return state


def twin(state, dtype=None):
    """A copy that shares no memory, in ``dtype`` where that is given."""
    kept = lambda name, tensor: tensor.dtype if name == "position" else dtype or tensor.dtype
    return state.with_tensors({n: t.to(kept(n, t), copy=True) for n, t in state.tensors().items()})


def written(state):
    """The state by name, without the rows that mean nothing: those behind the position."""
    rows = torch.arange(state.ring_k.shape[2], device=state.position.device)
    there = rows < state.position[..., None]
    closed = rows < state.position[..., None] - 1
    kept = {}
    for name, tensor in state.tensors().items():
        if name.startswith("ring"):
            mask = closed if name in ("ring_u", "ring_a", "ring_e") else there
            kept[name] = tensor.masked_fill(~mask[..., None], 0.0)
        else:
            kept[name] = tensor
    return kept
