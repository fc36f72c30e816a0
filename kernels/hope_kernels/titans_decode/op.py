"""The public face of decode: refuse what is wrong, then the kernels or the reference."""

from __future__ import annotations

from torch import Tensor

from hope_kernels.arguments import (
    require,
    require_linear_state,
    require_linear_weights,
    require_one_matrix,
    require_rows,
    require_slots,
)
from hope_kernels.layout import LinearState, LinearWeights, TitansRule
from hope_kernels.titans_decode.reference import titans_decode_slots_reference

KERNEL_SIZES = (16, 32, 64, 128)


def titans_decode(
    x: Tensor,
    q: Tensor,
    weights: LinearWeights,
    rule: TitansRule,
    clocks: tuple[LinearState, ...],
    slots: Tensor | None = None,
) -> Tensor:
    """One token of B sequences, each at its own place in its chunk; the clocks change in place.

    On a CUDA device one clock and a head size of 16, 32, 64 or 128 run as two kernels (README.md); two clocks, other
    sizes and fp64 run the reference.

    Args:
        x: [B, H, D], the memories' input.
        q: [B, H, D], the query before its L2 norm.
        weights: the initial memories.
        rule: the constants; ``rule.chunk_sizes`` gives one clock or two.
        clocks: one pool a clock. No ring of a sequence may be full: commit first.
        slots: [B] int, the slot of each sequence, all different; 0 for padding, which changes nothing and gets
            zeros. None: sequence b has slot b, and there is no padding.

    Returns:
        o: [B, H, D] in the dtype of x. On a CUDA device, whose tensors are not looked at from the host, a sequence
        with a full ring or a slot that does not exist gets NaN and changes nothing.

    Raises:
        ValueError: an argument does not fit.

    Source: arXiv 2512.24695, Eqs 83-93.
    """
    require_one_matrix(rule, weights)
    require_rows(x, q, "[B, H, D]")
    require_linear_weights(weights, x)
    require(len(clocks) == len(rule.chunk_sizes), "the number of clocks", len(clocks), str(len(rule.chunk_sizes)))
    for number, (clock, size) in enumerate(zip(clocks, rule.chunk_sizes, strict=True)):
        require_linear_state(f"clocks[{number}]", clock, weights, size)
        require_slots(slots, len(x), len(clock.matrix), x)
    if x.is_cuda and runs_on_kernels(x, weights, clocks):
        from hope_kernels.titans_decode.launch import launch_decode

        return launch_decode(x, q, weights, rule, clocks[0], slots)
    return titans_decode_slots_reference(x, q, weights, rule, clocks, slots)


def runs_on_kernels(x: Tensor, weights: LinearWeights, clocks: tuple[LinearState, ...]) -> bool:
    """Whether the kernels know this shape and these dtypes."""
    tensors = (x, weights.key, clocks[0].matrix, clocks[0].ring_k)
    return len(clocks) == 1 and x.shape[-1] in KERNEL_SIZES and all(t.element_size() <= 4 for t in tensors)
