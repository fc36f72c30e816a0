"""The public face of commit: refuse what is wrong, then the kernels or the reference."""

from __future__ import annotations

from torch import Tensor

from hope_kernels.arguments import require_linear_state, require_slots
from hope_kernels.layout import LinearState
from hope_kernels.spans import spanned
from hope_kernels.titans_commit.reference import titans_commit_slots_reference

KERNEL_SIZES = (16, 32, 64, 128)
KERNEL_CHUNK = 64


@spanned("commit")
def titans_commit(state: LinearState, slots: Tensor | None = None) -> None:
    """Write every full ring into its matrix, in place; sequences whose ring is not full stay as they are.

    On a CUDA device head sizes of 16, 32, 64 or 128 with chunks of up to 64 run as one kernel (README.md), which
    never waits for the host; others and fp64 run the reference, which does.

    Args:
        state: one clock's pool.
        slots: [B] int, the slots to look at, all different; 0 for padding. None: every row of the state.

    Raises:
        ValueError: an argument does not fit.

    Source: arXiv 2512.24695, Eqs 90-93 for a whole chunk.
    """
    require_linear_state("state", state)
    require_slots(slots, len(state.matrix) if slots is None else len(slots), len(state.matrix), state.matrix)
    if state.matrix.is_cuda and runs_on_kernels(state):
        from hope_kernels.titans_commit.launch import launch_commit

        launch_commit(state, slots)
    else:
        titans_commit_slots_reference(state, slots)


def runs_on_kernels(state: LinearState) -> bool:
    """Whether the kernels know this shape and these dtypes."""
    size, chunk = state.matrix.shape[-1], state.ring_k.shape[2]
    narrow = state.matrix.element_size() <= 4 and state.ring_k.element_size() <= 4
    return size in KERNEL_SIZES and chunk <= KERNEL_CHUNK and narrow
