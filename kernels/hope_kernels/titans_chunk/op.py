"""The public face of chunk: refuse what is wrong, then the kernels or the reference."""

from __future__ import annotations

from torch import Tensor

from hope_kernels.arguments import (
    require,
    require_clocks,
    require_constant_weights,
    require_linear_weights,
    require_one_matrix,
    require_rows,
    require_slots,
    require_starts,
)
from hope_kernels.layout import LinearState, LinearWeights, MlpWeights, TitansRule
from hope_kernels.mlp_state import MlpState
from hope_kernels.titans_chunk.gradient import differentiable_chunk
from hope_kernels.titans_chunk.mlp_op import mlp_chunk
from hope_kernels.titans_chunk.slots_reference import titans_chunk_slots_reference

KERNEL_SIZES = (16, 32, 64, 128)
KERNEL_CHUNK = 64


def titans_chunk(
    x: Tensor,
    q: Tensor,
    weights: LinearWeights | MlpWeights,
    rule: TitansRule,
    clocks: tuple[LinearState | MlpState, ...],
    slots: Tensor | None = None,
    starts: Tensor | None = None,
) -> Tensor:
    """Runs of tokens of B sequences, each from its own place in its chunk; the clocks change in place.

    A chunk that a run fills is committed, so no ring is full afterwards. The output can be differentiated, once,
    by x and q; what the sequences knew before is a constant of that gradient.

    On a CUDA device one clock with a head size of 16, 32, 64 or 128 and chunks of up to 64 runs as two kernels
    (README.md); two clocks, other sizes, fp64 and MLP memories run the reference, which waits for the host.

    Args:
        x: [N, H, D], the memories' input, one sequence's tokens behind the other's.
        q: [N, H, D], the query before its L2 norm.
        weights: the initial memories, constants: to learn them, differentiate ``titans_chunk_reference``.
        rule: the constants; ``rule.chunk_sizes`` gives one clock or two.
        clocks: one pool a clock, of ``MlpState`` for ``MlpWeights``. No ring of a sequence may be full: commit first.
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
    if isinstance(weights, MlpWeights):
        return mlp_chunk(x, q, weights, rule, clocks, slots, starts)
    require_one_matrix(rule, weights)
    require_linear_weights(weights, x)
    require_constant_weights(weights)
    linear = tuple(clock for clock in clocks if isinstance(clock, LinearState))
    kinds = [type(clock).__name__ for clock in clocks]
    require(len(linear) == len(clocks), "clocks", kinds, "LinearState, as weights are LinearWeights")
    require_clocks(linear, rule, x)
    count = len(linear[0].matrix) if slots is None else len(slots)
    require(count > 0, "the number of sequences", count, "at least 1")
    require_slots(slots, count, len(linear[0].matrix), x)
    require_starts(starts, count, x)
    if x.is_cuda and runs_on_kernels(x, weights, linear):
        return differentiable_chunk(x, q, weights, rule, linear[0], slots, starts)
    return titans_chunk_slots_reference(x, q, weights, rule, linear, slots, starts)


def runs_on_kernels(x: Tensor, weights: LinearWeights, clocks: tuple[LinearState, ...]) -> bool:
    """Whether the kernels know this shape and these dtypes."""
    tensors = (x, weights.key, clocks[0].matrix, clocks[0].ring_k)
    known = x.shape[-1] in KERNEL_SIZES and clocks[0].ring_k.shape[2] <= KERNEL_CHUNK
    return len(clocks) == 1 and known and all(t.element_size() <= 4 for t in tensors)
