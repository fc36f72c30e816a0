"""The end of a chunk of MLP memories in plain torch: the ring's rows become one write of every matrix."""

from __future__ import annotations

from hope_kernels.layout import MEMORIES, MlpWeights
from hope_kernels.mlp_state import MlpState
from hope_kernels.titans_chunk.mlp_rows import Rows, whole_matrices
from hope_kernels.titans_chunk.reference_memories import initial_matrices


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
