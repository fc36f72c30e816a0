"""Refuses what an op cannot take, by name: the argument, what was given, what is allowed."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from hope_kernels.layout import LinearState, LinearWeights, MlpWeights, TitansRule
from hope_kernels.mlp_state import MlpState

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def require(holds: bool, argument: str, given: object, allowed: str) -> None:
    """Raise ValueError unless ``holds``."""
    if not holds:
        raise ValueError(f"{argument} is {given}; it must be {allowed}")


def require_shape(argument: str, tensor: Tensor, shape: tuple[int, ...], names: str) -> None:
    """Raise ValueError unless ``tensor`` has ``shape``, whose letters are ``names``."""
    if tensor.shape != shape:  # words are made only for what is refused: a decode step asks hundreds of times
        require(False, f"{argument}'s shape", tuple(tensor.shape), f"{names} = {shape}")


def require_float(argument: str, tensor: Tensor, like: Tensor) -> None:
    """Raise ValueError unless ``tensor`` is a float tensor on the device of ``like``."""
    if tensor.dtype not in FLOATS:
        require(False, f"{argument}'s dtype", tensor.dtype, "a float of 16, 32 or 64 bits")
    if tensor.device != like.device:
        require(False, f"{argument}'s device", tensor.device, f"x's, {like.device}")


def require_dense_rows(argument: str, tensor: Tensor) -> None:
    """Raise ValueError unless everything behind the first axis is contiguous, since the op writes in place."""
    if not (tensor.is_contiguous() or tensor.shape[0] == 0 or _is_dense(tensor.shape[1:], tensor.stride()[1:])):
        require(False, f"{argument}'s strides", tensor.stride(), "contiguous behind the first axis")


def _is_dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """As a tensor's ``is_contiguous``, without making one of a row."""
    apart = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != apart:
            return 0 in shape
        apart *= size
    return True


def require_slots(slots: Tensor | None, count: int, num_slots: int, like: Tensor) -> None:
    """Raise ValueError unless ``slots`` names one slot a sequence; on a CPU the ids themselves are looked at."""
    if slots is None:
        require(
            count == num_slots, "the number of sequences", count, f"the state's first axis, {num_slots}, without slots"
        )
        return
    require_shape("slots", slots, (count,), "[B]")
    require(slots.dtype in (torch.int32, torch.int64), "slots' dtype", slots.dtype, "int32 or int64")
    require(slots.device == like.device, "slots' device", slots.device, f"x's, {like.device}")
    require(slots.is_contiguous(), "slots' strides", slots.stride(), "contiguous")
    if slots.is_cuda or not count:
        return
    named = slots.tolist()
    low, high = min(named), max(named)
    if low < 0 or high >= num_slots:
        require(False, "slots", f"from {low} to {high}", f"0 (nobody) to {num_slots - 1}")
    taken = [slot for slot in named if slot]
    require(len(set(taken)) == len(taken), "slots", named, "different from each other, but for 0")


def require_linear_state(argument: str, state: LinearState) -> None:
    """Raise ValueError unless the tensors of ``state`` agree with each other."""
    require(state.matrix.dim() == 4, f"{argument}.matrix's shape", tuple(state.matrix.shape), "[B, H, D, D]")
    require(state.ring_k.dim() == 4, f"{argument}.ring_k's shape", tuple(state.ring_k.shape), "[B, H, C, D]")
    (count, heads, size, _), chunk = state.matrix.shape, state.ring_k.shape[2]
    shapes = {
        "matrix": ((count, heads, size, size), "[B, H, D, D]"),
        "ring_k": ((count, heads, chunk, size), "[B, H, C, D]"),
        "ring_w": ((count, heads, chunk, size), "[B, H, C, D]"),
        "ring_gate": ((count, heads, chunk, 2), "[B, H, C, 2]"),
        "position": ((count, heads), "[B, H]"),
    }
    for name, tensor in state.tensors().items():
        if tensor.shape != shapes[name][0]:
            require_shape(f"{argument}.{name}", tensor, *shapes[name])
        if tensor.device != state.matrix.device:
            require(False, f"{argument}.{name}'s device", tensor.device, "the matrix's")
        require_dense_rows(f"{argument}.{name}", tensor)
    require(state.position.dtype is torch.int32, f"{argument}.position's dtype", state.position.dtype, "int32")
    require(state.ring_w.dtype is state.ring_k.dtype, f"{argument}.ring_w's dtype", state.ring_w.dtype, "ring_k's")
    strides = (state.ring_w.stride(), state.ring_k.stride())
    require(strides[0] == strides[1], f"{argument}.ring_w's strides", strides[0], f"ring_k's, {strides[1]}")
    for name in ("matrix", "ring_k"):
        dtype = getattr(state, name).dtype
        require(dtype in FLOATS, f"{argument}.{name}'s dtype", dtype, "a float of 16, 32 or 64 bits")
    wide = torch.float64 if state.matrix.dtype is torch.float64 else torch.float32
    require(state.ring_gate.dtype is wide, f"{argument}.ring_gate's dtype", state.ring_gate.dtype, str(wide))


def require_clocks(clocks: tuple[LinearState, ...], rule: TitansRule, x: Tensor) -> None:
    """Raise ValueError unless there is one state a clock and each fits rows x [..., H, D]."""
    require(len(clocks) == len(rule.chunk_sizes), "the number of clocks", len(clocks), str(len(rule.chunk_sizes)))
    heads, size = x.shape[-2:]
    for number, (clock, chunk) in enumerate(zip(clocks, rule.chunk_sizes, strict=True)):
        argument = f"clocks[{number}]"
        require_linear_state(argument, clock)
        count = len(clock.matrix)
        require_shape(f"{argument}.matrix", clock.matrix, (count, heads, size, size), "[B, H, D, D]")
        require_shape(f"{argument}.ring_k", clock.ring_k, (count, heads, chunk, size), "[B, H, C, D]")
        require(clock.matrix.device == x.device, f"{argument}'s device", clock.matrix.device, f"x's, {x.device}")


def require_linear_weights(weights: LinearWeights, like: Tensor) -> None:
    """Raise ValueError unless the five memories agree with each other and with rows ``like`` [..., H, D]."""
    heads, size = like.shape[-2:]
    for name in ("key", "value", "memory"):
        require_shape(f"weights.{name}", getattr(weights, name), (heads, size, size), "[H, D, D]")
        require_float(f"weights.{name}", getattr(weights, name), like)
        require(getattr(weights, name).dtype is weights.key.dtype, f"weights.{name}'s dtype", name, "weights.key's")
    require_shape("weights.gates", weights.gates, (heads, 2, size), "[H, 2, D]")
    require_shape("weights.gate_bias", weights.gate_bias, (heads, 2), "[H, 2]")
    for name in ("gates", "gate_bias"):
        require_float(f"weights.{name}", getattr(weights, name), like)


def require_rows(x: Tensor, q: Tensor, names: str) -> None:
    """Raise ValueError unless x and q are alike and neither is empty."""
    rank = names.count(",") + 1
    require(x.dim() == rank, "x's shape", tuple(x.shape), names)
    require(x.numel() > 0, "x's shape", tuple(x.shape), f"{names}, all at least 1")
    require_shape("q", q, tuple(x.shape), "x's")
    for argument, tensor in (("x", x), ("q", q)):
        require_float(argument, tensor, x)
    require(q.dtype is x.dtype, "q's dtype", q.dtype, f"x's, {x.dtype}")


def require_one_matrix(rule: TitansRule, weights: LinearWeights | MlpWeights) -> None:
    """Raise ValueError unless the five memories of a head are one matrix."""
    require(isinstance(weights, LinearWeights), "weights", type(weights).__name__, "LinearWeights")
    require(rule.retain_delta, "rule.retain_delta", rule.retain_delta, "True")


def require_constant_weights(weights: LinearWeights | MlpWeights) -> None:
    """Raise ValueError where a gradient would silently be lost."""
    for name, tensor in vars(weights).items():
        if isinstance(tensor, Tensor):
            learned = torch.is_grad_enabled() and tensor.requires_grad
            require(not learned, f"weights.{name}", "to be learned", "a constant; titans_chunk_reference learns it")


def require_starts(starts: Tensor | None, count: int, x: Tensor) -> None:
    """Raise ValueError unless ``starts`` cuts the rows of x into ``count`` runs; on a CPU its numbers are looked at."""
    if starts is None:
        require(len(x) % count == 0, "the number of rows", len(x), f"a multiple of {count} sequences without starts")
        return
    require_shape("starts", starts, (count + 1,), "[B + 1]")
    require(starts.dtype is torch.int32, "starts' dtype", starts.dtype, "int32")
    require(starts.device == x.device, "starts' device", starts.device, f"x's, {x.device}")
    require(starts.is_contiguous(), "starts' strides", starts.stride(), "contiguous")
    if not starts.is_cuda:
        ends = (int(starts[0]), int(starts[-1]))
        require(ends == (0, len(x)), "starts' ends", ends, f"(0, {len(x)})")
        shortest = int(starts.diff().min())
        require(shortest > 0, "starts' shortest run", shortest, "at least 1")


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


def require_mlp_clock(clocks: tuple[LinearState | MlpState, ...], weights: MlpWeights, rule: TitansRule) -> MlpState:
    """The one clock of MLP memories; raise ValueError unless the rule is one that pools know and the clock fits it."""
    require_mlp_rule(rule)
    require(len(clocks) == 1, "the number of clocks", len(clocks), "1 for MLP memories")
    state = clocks[0]
    if not isinstance(state, MlpState):
        raise ValueError(f"clocks[0] is {type(state).__name__}; it must be MlpState, as weights are MlpWeights")
    require_mlp_state("clocks[0]", state, weights, rule)
    return state


def require_mlp_rule(rule: TitansRule) -> None:
    """Raise ValueError unless MLP memories on slots know the rule."""
    require(rule.retain_delta, "rule.retain_delta", rule.retain_delta, "True for MLP memories on slots")
    require(not rule.dgd_hidden, "rule.dgd_hidden", rule.dgd_hidden, "False for MLP memories on slots")
    one = len(rule.chunk_sizes) == 1
    require(one, "rule.memory_chunk_size", rule.memory_chunk_size, "chunk_size, or 0, for MLP memories on slots")


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
