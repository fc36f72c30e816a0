"""The state of five MLP memories on slots: what was learned of each, and the rows not yet committed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Self

import torch
from torch import Tensor

from hope_kernels.layout import MEMORIES, RESIDUAL, Matrices, MlpWeights, TitansRule


@dataclass(frozen=True, kw_only=True)
class MlpState:
    """One clock of five MLP memories of hidden size F, over sequences, or slots of a pool whose slot 0 is nobody's.

    A token's row says what it will write into every memory: its k, v, eta and alpha. Of the memory that is read, it
    also keeps what the frozen matrices made of them, since every later token of the chunk reads through it:
    ``W2_s = alpha_s W2_{s-1} - u_s k_s^T`` and ``W1_s = alpha_s W1_{s-1} - eta_s e_s a_s^T``. Those three are filled
    in when the next token is read, which passes over the same matrices anyway: the last row is *open* until then.

    inner: [B, H, 5, F, D] and outer: [B, H, 3, D, F], what was learned, in the order of ``MlpWeights``;
    gate_outer: [B, H, 2, F]. ring_k, ring_v, ring_e: [B, H, C, D]; ring_u, ring_a: [B, H, C, F];
    ring_gate: [B, H, C, 2] = (eta, log of the decay from the chunk's start to after the row).
    position: [B, H] int32, rows in the ring; rows from it on mean nothing.
    """

    inner: Tensor
    outer: Tensor
    gate_outer: Tensor
    ring_k: Tensor
    ring_v: Tensor
    ring_e: Tensor
    ring_u: Tensor
    ring_a: Tensor
    ring_gate: Tensor
    position: Tensor

    @classmethod
    def fresh(
        cls,
        batch: int,
        weights: MlpWeights,
        chunk_size: int,
        *,
        dtype: torch.dtype | None = None,
        ring_dtype: torch.dtype | None = None,
    ) -> Self:
        """Memories that have learned nothing, on the device of ``weights``.

        Args:
            batch: sequences, or slots of a pool.
            dtype: of the matrices; None takes that of ``weights``.
            ring_dtype: of the ring's rows; None takes ``dtype``.

        Raises:
            ValueError: matrices in bfloat16, too coarse to be rounded once a chunk.
        """
        heads, _, hidden, size = weights.inner.shape
        dtype = dtype or weights.inner.dtype
        if dtype is torch.bfloat16:
            raise ValueError("dtype is bfloat16, too coarse for a state that is rounded at every chunk: take float16")
        zeros = partial(torch.zeros, dtype=dtype, device=weights.inner.device)
        ring = partial(zeros, batch, heads, chunk_size, dtype=ring_dtype or dtype)
        return cls(
            inner=zeros(batch, heads, 5, hidden, size),
            outer=zeros(batch, heads, 3, size, hidden),
            gate_outer=zeros(batch, heads, 2, hidden),
            ring_k=ring(size),
            ring_v=ring(size),
            ring_e=ring(size),
            ring_u=ring(hidden),
            ring_a=ring(hidden),
            ring_gate=ring(2, dtype=torch.float64 if dtype is torch.float64 else torch.float32),
            position=zeros(batch, heads, dtype=torch.int32),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name; the first axis of each is the sequence."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def with_tensors(self, named: Mapping[str, Tensor]) -> Self:
        """The same structure around the tensors that ``tensors`` would name."""
        return type(self)(**named)

    def learned(self) -> dict[str, Matrices]:
        """Each memory's (W2, W1), [B, H, out, in], without what it started from."""
        inner = dict(zip(MEMORIES, self.inner.unbind(2), strict=True))
        outer = dict(zip(RESIDUAL, self.outer.unbind(2), strict=True))
        outer |= {name: self.gate_outer[:, :, i : i + 1] for i, name in enumerate(("eta", "alpha"))}
        return {name: (inner[name], outer[name]) for name in MEMORIES}


def knows_rule(rule: TitansRule) -> bool:
    """Whether ``MlpState`` can follow a rule: one clock, delta retention, no delta rule for W1."""
    return rule.retain_delta and not rule.dgd_hidden and len(rule.chunk_sizes) == 1
