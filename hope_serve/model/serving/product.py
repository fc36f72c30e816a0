"""The one way in which a served model multiplies rows by its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from hope_kernels.few_rows_linear.narrow import MAX_ROWS, few_rows_narrow, packed
from hope_kernels.few_rows_linear.op import few_rows_linear
from hope_kernels.spans import spanned
from torch import Tensor


@dataclass(frozen=True)
class Shared:
    """A matrix W [M, K] that everybody's rows are multiplied by; narrow: the same numbers in fewer bits, on a CPU."""

    wide: Tensor
    narrow: Any | None

    @classmethod
    def of(cls, weight: Tensor) -> Shared:
        """The matrix, in 16 bits as well where that loses nothing."""
        return cls(weight, packed(weight))

    @property
    def num_bytes(self) -> int:
        """What a product with a few rows reads."""
        return self.wide.numel() * (2 if self.narrow is not None else self.wide.element_size())


def product(
    x: Tensor, weight: Tensor | Shared, out_dtype: torch.dtype | None = None, *, height: int | None = None
) -> Tensor:
    """x W^T of rows [..., K] and W [M, K], [..., M]; ``out_dtype`` None for that of x. See ``few_rows_linear``.

    Args:
        height: only so many of W's rows count, [..., height].
    """
    # A decode step has rows as they are wanted; on a CPU a view of every product's is time that shows.
    rows = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
    narrow = weight.narrow if isinstance(weight, Shared) else None
    if narrow is None or rows.shape[0] > MAX_ROWS or (torch.is_grad_enabled() and x.requires_grad):
        wide = weight.wide if isinstance(weight, Shared) else weight
        y = few_rows_linear(rows, wide if height is None else wide[:height], out_dtype)
    else:
        y = _narrow(rows, narrow)
        y = y if height is None or height == y.shape[1] else y[:, :height]
    return y if x.dim() == 2 else y.view(*x.shape[:-1], y.shape[1])


@spanned("projections")
def _narrow(rows: Tensor, weight: Any) -> Tensor:
    return few_rows_narrow(rows, weight)
