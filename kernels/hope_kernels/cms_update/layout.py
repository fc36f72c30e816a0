"""What an update works on: a level's pools, and a call's gradients before they are summed.

Shape letters: S slots, L layers, N rows, B sequences.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LevelPools:
    """One matrix of a level for every slot, all [S, L, d_out, r] ([S, L, d_out, d_in] for full deltas).

    delta: what has been learned. gradient: the open chunk's sum, zero where no chunk is open. momentum: m of the
    optimizer ``momentum``; None is ``gd``. Slot 0 is the null slot, which nothing reads or writes. Each may be a
    slice along S or L of a wider pool whose last three axes are contiguous.
    """

    delta: Tensor
    gradient: Tensor
    momentum: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor there is, by name; the first axis of each is the slot."""
        named = {"delta": self.delta, "gradient": self.gradient}
        return named if self.momentum is None else named | {"momentum": self.momentum}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A call's gradient as the rows it is the sum of: G A^T = sum_t grad_t projected_t^T over a sequence's rows.

    grad: [L, N, d_out], dCE/d(output) of the matrix. projected: [L, N, r], x A^T of its input, contiguous.
    cu_seqlens: [B + 1] int32, 0 first and N last; sequence b has rows cu_seqlens[b] to cu_seqlens[b + 1].
    """

    grad: Tensor
    projected: Tensor
    cu_seqlens: Tensor
