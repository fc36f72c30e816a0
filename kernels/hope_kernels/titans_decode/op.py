"""The public face of decode: refuse what is wrong, then the kernels or the reference."""

from __future__ import annotations

from torch import Tensor

from hope_kernels.arguments import (
    require,
    require_clocks,
    require_linear_weights,
    require_one_matrix,
    require_rows,
    require_slots,
)
from hope_kernels.layout import LinearState, LinearWeights, MlpWeights, TitansRule
from hope_kernels.mlp_state import MlpState
from hope_kernels.spans import spanned
from hope_kernels.titans_decode.mlp_op import mlp_decode
from hope_kernels.titans_decode.reference import titans_decode_slots_reference

KERNEL_SIZES = (16, 32, 64, 128)


@spanned("read")
def titans_decode(
    x: Tensor,
    q: Tensor,
    weights: LinearWeights | MlpWeights,
    rule: TitansRule,
    clocks: tuple[LinearState | MlpState, ...],
    slots: Tensor | None = None,
) -> Tensor:
    """One token of B sequences, each at its own place in its chunk; the clocks change in place.

    On a CUDA device one clock and a head size of 16, 32, 64 or 128 run as two kernels (README.md), or three for MLP
    memories whose hidden size is a power of two; two clocks, other sizes and fp64 run the reference.

    Args:
        x: [B, H, D], the memories' input.
        q: [B, H, D], the query before its L2 norm.
        weights: the initial memories.
        rule: the constants; ``rule.chunk_sizes`` gives one clock or two.
        clocks: one pool a clock, of ``MlpState`` for ``MlpWeights``. No ring of a sequence may be full: commit first.
        slots: [B] int, the slot of each sequence, all different; 0 for padding, which changes nothing and gets
            zeros. None: sequence b has slot b, and there is no padding.

    Returns:
        o: [B, H, D] in the dtype of x. On a CUDA device, whose tensors are not looked at from the host, a sequence
        with a full ring or a slot that does not exist gets NaN and changes nothing.

    Raises:
        ValueError: an argument does not fit.

    Source: arXiv 2512.24695, Eqs 83-93.
    """
    require_rows(x, q, "[B, H, D]")
    if isinstance(weights, MlpWeights):
        return mlp_decode(x, q, weights, rule, clocks, slots)
    require_one_matrix(rule, weights)
    require_linear_weights(weights, x)
    linear = tuple(clock for clock in clocks if isinstance(clock, LinearState))
    kinds = [type(clock).__name__ for clock in clocks]
    require(len(linear) == len(clocks), "clocks", kinds, "LinearState, as weights are LinearWeights")
    require_clocks(linear, rule, x)
    require_slots(slots, len(x), len(linear[0].matrix), x)
    if x.is_cuda and runs_on_kernels(x, weights, linear):
        from hope_kernels.titans_decode.launch import launch_decode

        return launch_decode(x, q, weights, rule, linear[0], slots)
    return titans_decode_slots_reference(x, q, weights, rule, linear, slots)


def runs_on_kernels(x: Tensor, weights: LinearWeights, clocks: tuple[LinearState, ...]) -> bool:
    """Whether the kernels know this shape and these dtypes."""
    tensors = (x, weights.key, clocks[0].matrix, clocks[0].ring_k)
    return len(clocks) == 1 and x.shape[-1] in KERNEL_SIZES and all(t.element_size() <= 4 for t in tensors)
