"""Titans memories to be timed: pools of every layer, their rings filled up to a place, and inputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hope_kernels.layout import LinearState, LinearWeights, TitansRule
from torch import Tensor

BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A pool's: chunk C, and what its matrix and its ring are kept in."""

    heads: int
    size: int
    chunk: int
    dtype: torch.dtype
    ring: torch.dtype

    def __str__(self) -> str:
        names = {F32: "fp32", F16: "fp16", BF16: "bf16"}
        kept = names[self.dtype] + ("" if self.ring is self.dtype else f" ring {names[self.ring]}")
        return f"H={self.heads} D={self.size} C={self.chunk} {kept}"

    def matrix_bytes(self) -> int:
        """One head's matrix."""
        return self.size**2 * self.dtype.itemsize

    def ring_bytes(self, rows: int) -> int:
        """``rows`` of one head's ring."""
        return rows * (2 * self.size * self.ring.itemsize + 8)


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Every layer's pool, weights and inputs; ``position`` [L, S, H] is what all pools count in."""

    rule: TitansRule
    states: list[LinearState]
    weights: list[LinearWeights]
    x: Tensor
    q: Tensor
    slots: Tensor
    position: Tensor


def linear_weights(heads: int, size: int, dtype: torch.dtype = BF16) -> LinearWeights:
    """Memories near the identity whose gates write little and retain much."""

    def square() -> Tensor:
        return (torch.eye(size) + 0.5 * torch.randn(heads, size, size) / size**0.5).to(dtype)

    return LinearWeights(
        key=square(),
        value=square(),
        memory=square(),
        gates=(torch.randn(heads, 2, size) / size**0.5).to(dtype),
        gate_bias=(torch.tensor([0.0, 6.0]) + 0.3 * torch.randn(heads, 2)).to(dtype),
    )


def layers(count: int, batch: int, shape: Shape, at: int) -> Layers:
    """``count`` layers of ``batch`` sequences in shuffled slots, ``at`` rows in every ring; the null slot is NaN.

    Matrices are contractions, so that a ring's open row, closed again at every replay, stays finite.
    """
    heads, size, chunk = shape.heads, shape.size, shape.chunk
    each = (count, batch + 1, heads)
    matrix = torch.empty(*each, size, size, dtype=shape.dtype).normal_(0, 0.3 / size**0.5)
    matrix.diagonal(dim1=-2, dim2=-1).sub_(0.5)
    ring_k = torch.empty(*each, chunk, size, dtype=shape.ring).normal_(0, size**-0.5)
    ring_w = torch.empty(*each, chunk, size, dtype=shape.ring).normal_(0, 0.05 * size**-0.5)
    gate = torch.stack([0.1 * torch.rand(*each, chunk), -(0.01 * torch.rand(*each, chunk)).cumsum(-1)], -1)
    position = torch.full(each, at, dtype=torch.int32)
    for ring in (ring_k, ring_w, gate):
        ring[..., at:, :] = 0
    for tensor in (matrix, ring_k, ring_w, gate):
        tensor[:, 0] = torch.nan
    states = [
        LinearState(matrix=m, ring_k=k, ring_w=w, ring_gate=g, position=p)
        for m, k, w, g, p in zip(matrix, ring_k, ring_w, gate, position, strict=True)
    ]
    return Layers(
        rule=TitansRule(chunk_size=chunk),
        states=states,
        weights=[linear_weights(heads, size) for _ in range(count)],
        x=F.normalize(torch.randn(count, batch, heads, size), dim=-1).to(BF16),
        q=torch.randn(count, batch, heads, size).to(BF16),
        slots=torch.randperm(batch).to(torch.int32) + 1,
        position=position,
    )


def in_double(state: LinearState) -> LinearState:
    """A copy in fp64."""
    return state.with_(**{n: t.clone() if n == "position" else t.double() for n, t in state.tensors().items()})
