"""Commit of MLP memories: refuse what is wrong, then the kernels or the reference."""

from __future__ import annotations

from torch import Tensor

from hope_kernels.arguments import require_mlp_rule, require_mlp_state, require_slots
from hope_kernels.layout import MlpWeights, TitansRule
from hope_kernels.mlp_state import MlpState
from hope_kernels.pool import in_use, put, take, weights_in, working_dtype
from hope_kernels.spans import spanned
from hope_kernels.titans_commit.mlp_reference import mlp_commit_reference

KERNEL_SIZES = (64, 128)
KERNEL_HIDDEN = (64, 128, 256, 512)
KERNEL_CHUNK = 64


@spanned("commit")
def mlp_commit(weights: MlpWeights, rule: TitansRule, state: MlpState, slots: Tensor | None = None) -> None:
    """Write every full ring into its memories, in place; sequences whose ring is not full stay as they are.

    A chunk's rows are recomputed from k and v for each of the five memories, C tokens at once. On a CUDA device the
    sizes of ``KERNEL_SIZES`` and ``KERNEL_HIDDEN`` with chunks of up to 64 run as three kernels (README.md), which
    never wait for the host; others and fp64 run the reference, which does.

    Args:
        weights, rule: as ``titans_decode`` takes them; the gradients need the initial memories.
        state: a pool.
        slots: [B] int, the slots to look at, all different; 0 for padding. None: every row of the state.

    Raises:
        ValueError: an argument does not fit.

    Source: arXiv 2512.24695, Eqs 90-93 for a whole chunk.
    """
    require_mlp_rule(rule)
    require_mlp_state("state", state, weights, rule)
    require_slots(slots, len(state.inner) if slots is None else len(slots), len(state.inner), state.inner)
    if state.inner.is_cuda and runs_on_kernels(weights, state):
        from hope_kernels.titans_commit.mlp_launch import launch_mlp_commit

        launch_mlp_commit(weights, state, slots)
    else:
        mlp_commit_slots_reference(weights, state, slots)


def mlp_commit_slots_reference(weights: MlpWeights, state: MlpState, slots: Tensor | None) -> None:
    """The reference on the slots whose ring is full, computed in fp32 whatever the pool's dtype."""
    _, used = in_use(slots, len(state.inner), state.inner)
    full = used[state.position[used, 0] == state.ring_k.shape[2]]
    if not len(full):
        return
    batch = take(state, full, working_dtype(state.inner))
    mlp_commit_reference(weights_in(weights, batch.inner.dtype), batch)
    put(state, full, batch)


def runs_on_kernels(weights: MlpWeights, state: MlpState) -> bool:
    """Whether the kernels know this shape and these dtypes."""
    hidden, size = weights.inner.shape[2:]
    narrow = all(t.element_size() <= 4 for t in (weights.inner, state.inner, state.ring_k))
    return size in KERNEL_SIZES and hidden in KERNEL_HIDDEN and state.ring_k.shape[2] <= KERNEL_CHUNK and narrow
