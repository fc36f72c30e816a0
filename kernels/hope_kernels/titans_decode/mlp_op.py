"""Decode of MLP memories: refuse what is wrong, then the kernels or the reference."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor

from hope_kernels.arguments import FLOATS, require, require_dense_rows, require_float, require_shape, require_slots
from hope_kernels.layout import LinearState, MlpWeights, TitansRule
from hope_kernels.pool import in_use, working_dtype
from hope_kernels.titans_decode.mlp_reference import mlp_decode_reference
from hope_kernels.titans_decode.mlp_state import MlpState

KERNEL_SIZES = (16, 32, 64, 128)
KERNEL_HIDDEN = (16, 32, 64, 128, 256, 512)
KERNEL_CHUNK = 64


def mlp_decode(
    x: Tensor,
    q: Tensor,
    weights: MlpWeights,
    rule: TitansRule,
    clocks: tuple[LinearState | MlpState, ...],
    slots: Tensor | None,
) -> Tensor:
    """``titans_decode`` for MLP memories, whose x and q have been checked.

    Raises:
        ValueError: an argument does not fit.
    """
    require(rule.retain_delta, "rule.retain_delta", rule.retain_delta, "True")
    require(not rule.dgd_hidden, "rule.dgd_hidden", rule.dgd_hidden, "False: decode of MLP memories has no such rule")
    require(len(rule.chunk_sizes) == 1, "rule.memory_chunk_size", rule.memory_chunk_size, "chunk_size, or 0")
    require(len(clocks) == 1, "the number of clocks", len(clocks), "1 for MLP memories")
    state = clocks[0]
    if not isinstance(state, MlpState):
        raise ValueError(f"clocks[0] is {type(state).__name__}; it must be MlpState, as weights are MlpWeights")
    require_mlp_weights(weights, x)
    require_mlp_state("clocks[0]", state, weights, rule)
    require_slots(slots, len(x), len(state.inner), x)
    if x.is_cuda and runs_on_kernels(x, weights, state):
        from hope_kernels.titans_decode.mlp_launch import launch_mlp_decode

        return launch_mlp_decode(x, q, weights, rule, state, slots)
    return mlp_decode_slots_reference(x, q, weights, rule, state, slots)


def mlp_decode_slots_reference(
    x: Tensor, q: Tensor, weights: MlpWeights, rule: TitansRule, state: MlpState, slots: Tensor | None
) -> Tensor:
    """The reference on slots of a pool, computed in fp32 whatever the pool's dtype.

    Raises:
        ValueError: a ring is full.
    """
    rows, used = in_use(slots, len(x), x)
    dtype = working_dtype(x)
    batch = take(state, used, dtype)
    full = used[(batch.position >= rule.chunk_size).any(1)]
    require(not len(full), "clocks[0]'s ring in slots", full.tolist(), "committed before the next token")
    out = torch.zeros_like(x)
    out[rows] = mlp_decode_reference(x[rows].to(dtype), q[rows].to(dtype), in_dtype(weights, dtype), rule, batch).to(
        x.dtype
    )
    put(state, used, batch)
    return out


def take(state: MlpState, slots: Tensor, dtype: torch.dtype) -> MlpState:
    """A copy of ``slots`` in ``dtype``."""
    named = {name: tensor[slots] for name, tensor in state.tensors().items()}
    return state.with_tensors({n: t if n == "position" else t.to(dtype) for n, t in named.items()})


def put(state: MlpState, slots: Tensor, new: MlpState) -> None:
    """Write ``new`` into ``slots``, rounded to the pool's dtypes."""
    moved = new.tensors()
    for name, tensor in state.tensors().items():
        tensor[slots] = moved[name].to(tensor.dtype)


def in_dtype(weights: MlpWeights, dtype: torch.dtype) -> MlpWeights:
    """The weights in ``dtype``."""
    return replace(weights, **{field.name: getattr(weights, field.name).to(dtype) for field in fields(weights)})


def runs_on_kernels(x: Tensor, weights: MlpWeights, state: MlpState) -> bool:
    """Whether the kernels know this shape and these dtypes."""
    hidden, size = weights.inner.shape[2:]
    narrow = all(t.element_size() <= 4 for t in (x, weights.inner, state.inner, state.ring_k))
    sizes = size in KERNEL_SIZES and hidden in KERNEL_HIDDEN and 4 * hidden >= size
    return sizes and state.ring_k.shape[2] <= KERNEL_CHUNK and narrow


def require_mlp_weights(weights: MlpWeights, like: Tensor) -> None:
    """Raise ValueError unless the five memories agree with each other and with rows ``like`` [..., H, D]."""
    heads, size = like.shape[-2:]
    require(weights.inner.dim() == 4, "weights.inner's shape", tuple(weights.inner.shape), "[H, 5, F, D]")
    hidden = weights.inner.shape[2]
    require_shape("weights.inner", weights.inner, (heads, 5, hidden, size), "[H, 5, F, D]")
    require_shape("weights.outer", weights.outer, (heads, 3, size, hidden), "[H, 3, D, F]")
    require_shape("weights.gate_outer", weights.gate_outer, (heads, 2, hidden), "[H, 2, F]")
    require_shape("weights.gate_bias", weights.gate_bias, (heads, 2), "[H, 2]")
    for field in fields(weights):
        tensor = getattr(weights, field.name)
        require_float(f"weights.{field.name}", tensor, like)
        alike = f"weights.inner's, {weights.inner.dtype}"
        require(tensor.dtype is weights.inner.dtype, f"weights.{field.name}'s dtype", tensor.dtype, alike)


def require_mlp_state(argument: str, state: MlpState, weights: MlpWeights, rule: TitansRule) -> None:
    """Raise ValueError unless ``state`` fits ``weights`` and the chunk size."""
    (heads, _, hidden, size), count, chunk = weights.inner.shape, len(state.inner), rule.chunk_size
    narrow, wide = ((count, heads, chunk, n) for n in (size, hidden))
    shapes = {
        "inner": ((count, heads, 5, hidden, size), "[B, H, 5, F, D]"),
        "outer": ((count, heads, 3, size, hidden), "[B, H, 3, D, F]"),
        "gate_outer": ((count, heads, 2, hidden), "[B, H, 2, F]"),
        **dict.fromkeys(("ring_k", "ring_v", "ring_e"), (narrow, "[B, H, C, D]")),
        **dict.fromkeys(("ring_u", "ring_a"), (wide, "[B, H, C, F]")),
        "ring_gate": ((count, heads, chunk, 2), "[B, H, C, 2]"),
        "position": ((count, heads), "[B, H]"),
    }
    for name, tensor in state.tensors().items():
        require_shape(f"{argument}.{name}", tensor, *shapes[name])
        require(tensor.device == weights.inner.device, f"{argument}.{name}'s device", tensor.device, "the weights'")
        require_dense_rows(f"{argument}.{name}", tensor)
    for name, like in (
        ("outer", "inner"),
        ("gate_outer", "inner"),
        ("ring_v", "ring_k"),
        ("ring_e", "ring_k"),
        ("ring_u", "ring_k"),
        ("ring_a", "ring_k"),
    ):
        given, wanted = getattr(state, name), getattr(state, like)
        require(given.dtype is wanted.dtype, f"{argument}.{name}'s dtype", given.dtype, f"{like}'s, {wanted.dtype}")
    for name, like in (("ring_v", "ring_k"), ("ring_e", "ring_k"), ("ring_a", "ring_u")):
        strides = (getattr(state, name).stride(), getattr(state, like).stride())
        require(strides[0] == strides[1], f"{argument}.{name}'s strides", strides[0], f"{like}'s, {strides[1]}")
    for name in ("inner", "ring_k"):
        dtype = getattr(state, name).dtype
        require(dtype in FLOATS, f"{argument}.{name}'s dtype", dtype, "a float of 16, 32 or 64 bits")
    wide_dtype, given = (torch.float64 if state.inner.dtype is torch.float64 else torch.float32), state.ring_gate.dtype
    require(given is wide_dtype, f"{argument}.ring_gate's dtype", given, str(wide_dtype))
    require(state.position.dtype is torch.int32, f"{argument}.position's dtype", state.position.dtype, "int32")
