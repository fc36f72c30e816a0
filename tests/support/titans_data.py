"""Random Titans weights and pools whose slots stand at different places in their chunks."""

from __future__ import annotations

import torch
from hope_kernels.layout import LinearState, LinearWeights
from hope_kernels.pool import put, weights_in
from hope_kernels.titans_chunk.reference import titans_chunk_reference


def linear_weights(heads, size, dtype=torch.float32, device="cpu"):
    """Memories as a trained model has them: near the identity, retaining."""
    square = lambda: torch.eye(size) + 0.5 * torch.randn(heads, size, size) / size**0.5
    weights = LinearWeights(
        key=square(),
        value=square(),
        memory=square(),
        gates=torch.randn(heads, 2, size) / size**0.5,
        gate_bias=torch.tensor([0.0, 3.0]) + 0.3 * torch.randn(heads, 2),
    )
    return on(weights_in(weights, dtype), device)


def pool(weights, rule, positions, *, chunks=2, dtype=torch.float32, ring_dtype=None):
    """A pool with slot b + 1 at ``positions[b]`` after ``chunks`` whole chunks; slot 0 is NaN throughout."""
    heads, size, _ = weights.key.shape
    wide, device = weights_in(weights, torch.float64), weights.key.device
    blank = LinearState.fresh(len(positions) + 1, on(weights, "cpu"), rule.chunk_size, dtype=torch.float32)
    state = blank.with_(
        matrix=blank.matrix.to(dtype),
        ring_k=blank.ring_k.to(ring_dtype or dtype),
        ring_w=blank.ring_w.to(ring_dtype or dtype),
    )
    state = on(state, device)
    for slot, at in enumerate(positions, 1):
        tokens = chunks * rule.chunk_size + at
        x = torch.randn(1, heads, max(tokens, 1), size, dtype=torch.float64, device=device)[:, :, :tokens]
        clocks = (LinearState.fresh(1, wide, rule.chunk_size),)
        if tokens:
            _, clocks = titans_chunk_reference(x, x, wide, rule, clocks, positions=(0,))
        put(state, torch.tensor([slot], device=device), clocks[0])
    for name, tensor in state.tensors().items():
        if name != "position":
            tensor[0] = torch.nan
    return state


def on(thing, device):
    """A dataclass of tensors on another device."""
    return type(thing)(**{name: tensor.to(device) for name, tensor in vars(thing).items()})


def twin(state):
    """A copy that shares no memory."""
    return state.with_(**{name: tensor.clone() for name, tensor in state.tensors().items()})


def in_double(state):
    """A copy in fp64."""
    return state.with_(**{n: t.clone() if n == "position" else t.double() for n, t in state.tensors().items()})


def relative(given, expected):
    """|given - expected| / |expected|; NaN counts as infinitely wrong."""
    given, expected = given.double(), expected.double()
    error = ((given - expected).norm() / expected.norm().clamp(min=1e-30)).item()
    return error if error == error else float("inf")
