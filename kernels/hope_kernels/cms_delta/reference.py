"""What a sequence's delta adds to a CMS matrix's output, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_kernels.pool import working_dtype


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


def cms_delta_rows_reference(
    y: Tensor, x: Tensor, delta: Tensor, projection: Tensor | None, slots: Tensor | None, cu_seqlens: Tensor | None
) -> Tensor:
    """y += what each row's sequence has learned, in place; arguments as ``cms_delta``. Differentiable throughout."""
    dtype = working_dtype(x)
    ends = range(1, len(x) + 1) if cu_seqlens is None else cu_seqlens[1:].tolist()
    owners = range(len(ends)) if slots is None else slots.tolist()
    shared = None if projection is None else projection.to(dtype)
    parts, start = [], 0
    for owner, end in zip(owners, ends, strict=True):
        rows = x[start:end].to(dtype)[None]
        start = end
        if slots is not None and owner == 0:
            parts.append(rows.new_zeros(1, rows.shape[1], y.shape[1]))
        else:
            parts.append(cms_delta_reference(rows, delta[owner].to(dtype)[None], shared))
    return y.add_(torch.cat(parts, 1)[0])
