"""The public face of chunk: refuse what is wrong, then the kernels or the reference."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_kernels.arguments import (
    require,
    require_clocks,
    require_linear_weights,
    require_one_matrix,
    require_rows,
    require_shape,
    require_slots,
)
from hope_kernels.layout import LinearState, LinearWeights, TitansRule
from hope_kernels.titans_chunk.gradient import differentiable_chunk
from hope_kernels.titans_chunk.slots_reference import titans_chunk_slots_reference

KERNEL_SIZES = (16, 32, 64, 128)
KERNEL_CHUNK = 64


def titans_chunk(
    x: Tensor,
    q: Tensor,
    weights: LinearWeights,
    rule: TitansRule,
    clocks: tuple[LinearState, ...],
    slots: Tensor | None = None,
    starts: Tensor | None = None,
) -> Tensor:
    """Runs of tokens of B sequences, each from its own place in its chunk; the clocks change in place.

    A chunk that a run fills is committed, so no ring is full afterwards. The output can be differentiated, once,
    by x and q; what the sequences knew before is a constant of that gradient.

    On a CUDA device one clock with a head size of 16, 32, 64 or 128 and chunks of up to 64 runs as two kernels
    (README.md); two clocks, other sizes and fp64 run the reference, which waits for the host.

    Args:
        x: [N, H, D], the memories' input, one sequence's tokens behind the other's.
        q: [N, H, D], the query before its L2 norm.
        weights: the initial memories, constants: to learn them, differentiate ``titans_chunk_reference``.
        rule: the constants; ``rule.chunk_sizes`` gives one clock or two.
        clocks: one pool a clock. No ring of a sequence may be full: commit first.
        slots: [B] int, the slot of each sequence, all different; 0 for padding, which changes nothing and gets
            zeros. None: sequence b has slot b, and there is no padding.
        starts: [B + 1] int32, sequence b has rows starts[b] to starts[b + 1], at least one; starts[B] = N.
            None: B runs of N / B tokens.

    Returns:
        o: [N, H, D] in the dtype of x. On a CUDA device, whose tensors are not looked at from the host, a sequence
        with a full ring or a slot that does not exist gets NaN and changes nothing.

    Raises:
        ValueError: an argument does not fit.

    Source: arXiv 2512.24695, Eqs 83-93.
    """
    require_rows(x, q, "[N, H, D]")
    require_one_matrix(rule, weights)
    require_linear_weights(weights, x)
    require_constant_weights(weights)
    kinds = [type(clock).__name__ for clock in clocks]
    require(all(isinstance(clock, LinearState) for clock in clocks), "clocks", kinds, "LinearState")
    require_clocks(clocks, rule, x)
    count = len(clocks[0].matrix) if slots is None else len(slots)
    require(count > 0, "the number of sequences", count, "at least 1")
    require_slots(slots, count, len(clocks[0].matrix), x)
    require_starts(starts, count, x)
    if x.is_cuda and runs_on_kernels(x, weights, clocks):
        return differentiable_chunk(x, q, weights, rule, clocks[0], slots, starts)
    return titans_chunk_slots_reference(x, q, weights, rule, clocks, slots, starts)


def require_constant_weights(weights: LinearWeights) -> None:
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


def runs_on_kernels(x: Tensor, weights: LinearWeights, clocks: tuple[LinearState, ...]) -> bool:
    """Whether the kernels know this shape and these dtypes."""
    tensors = (x, weights.key, clocks[0].matrix, clocks[0].ring_k)
    known = x.shape[-1] in KERNEL_SIZES and clocks[0].ring_k.shape[2] <= KERNEL_CHUNK
    return len(clocks) == 1 and known and all(t.element_size() <= 4 for t in tensors)
