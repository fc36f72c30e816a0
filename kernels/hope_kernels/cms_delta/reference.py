"""What a user's delta adds to a CMS matrix's output, in plain torch."""

from __future__ import annotations

from torch import Tensor


def cms_delta_reference(x: Tensor, delta: Tensor, projection: Tensor | None = None) -> Tensor:
    """y = (x A^T) B^T of each sequence's own B; or x D^T of its full delta.

    Args:
        x: [B, T, d_in].
        delta: [B, d_out, r], or [B, d_out, d_in] when ``projection`` is None.
        projection: A, [r, d_in], shared by all.

    Returns:
        [B, T, d_out].
    """
    if projection is not None:
        x = x @ projection.mT
    return x @ delta.mT
