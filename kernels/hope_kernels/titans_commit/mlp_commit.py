"""Commit of MLP memories, in torch on every device: batched products over the slots whose ring is full."""

from __future__ import annotations

from torch import Tensor

from hope_kernels.arguments import require_mlp_rule, require_mlp_state, require_slots
from hope_kernels.layout import MEMORIES, MlpWeights, TitansRule
from hope_kernels.mlp_state import MlpState
from hope_kernels.pool import in_use, put, take, weights_in, working_dtype
from hope_kernels.titans_chunk.mlp_rows import Rows, whole_matrices
from hope_kernels.titans_chunk.reference_memories import initial_matrices


def mlp_commit(weights: MlpWeights, rule: TitansRule, state: MlpState, slots: Tensor | None = None) -> None:
    """Write every full ring into its memories, in place; sequences whose ring is not full stay as they are.

    A chunk's rows are recomputed from k and v for each of the five memories: C tokens at once, so this is matrix
    products of torch. It waits for the host, which has to know how many rings are full; not for CUDA graphs.

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
    _, used = in_use(slots, len(state.inner), state.inner)
    full = used[state.position[used, 0] == rule.chunk_size]
    if not len(full):
        return
    batch = take(state, full, working_dtype(state.inner))
    mlp_commit_reference(weights_in(weights, batch.inner.dtype), batch)
    put(state, full, batch)


def mlp_commit_reference(weights: MlpWeights, state: MlpState) -> None:
    """The rows of whole chunks become one write of every matrix, in place, and the rings empty.

    Source: arXiv 2512.24695, Eqs 90-93.
    """
    learned, rows = state.learned(), Rows(state)
    whole = whole_matrices(initial_matrices(weights), learned)
    end = rows.decay[..., -1:]
    left = (end - rows.decay).exp()[..., None]
    for name in MEMORIES:
        for matrix, (w, x) in zip(learned[name], rows.written(name, learned[name], whole[name]), strict=True):
            matrix.copy_(end[..., None].exp() * matrix - (left * w).mT @ x)
    for name, tensor in state.tensors().items():
        if name.startswith("ring") or name == "position":
            tensor.zero_()
