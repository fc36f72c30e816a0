"""MLP memories to be timed: pools of every layer with half-full rings, and inputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hope_kernels.layout import MlpWeights, TitansRule
from hope_kernels.mlp_state import MlpState
from torch import Tensor

from benchmarks.kernels.titans_data import BF16, F16, F32


@dataclass(frozen=True, kw_only=True)
class MlpShape:
    """A pool's: hidden size F, chunk C, and what its matrices and its ring are kept in."""

    heads: int
    size: int
    hidden: int
    chunk: int
    dtype: torch.dtype
    ring: torch.dtype

    def __str__(self) -> str:
        names = {F32: "fp32", F16: "fp16"}
        return f"H={self.heads} D={self.size} F={self.hidden} C={self.chunk} {names[self.dtype]}"

    def read_bytes(self, batch: int) -> int:
        """One token's: every matrix, what the rows so far are read through, and the initial matrices once."""
        values = 8 * self.size * self.hidden + 2 * self.hidden
        rows = (self.chunk // 2) * (2 * self.size + 2 * self.hidden) * self.ring.itemsize
        return self.heads * (batch * (values * self.dtype.itemsize + rows) + 2 * values)

    def commit_bytes(self, batch: int) -> int:
        """Every matrix read and written; k and v read, and all of the rings emptied."""
        matrices = 2 * (8 * self.size * self.hidden + 2 * self.hidden) * self.dtype.itemsize
        rows = self.chunk * (5 * self.size + 2 * self.hidden) * self.ring.itemsize
        return batch * self.heads * (matrices + rows)


@dataclass(frozen=True, kw_only=True)
class MlpLayers:
    """Every layer's pool, weights and inputs; ``position`` [L, S, H] is what all pools count in."""

    rule: TitansRule
    states: list[MlpState]
    weights: list[MlpWeights]
    x: Tensor
    q: Tensor
    slots: Tensor
    position: Tensor


def mlp_layers(count: int, batch: int, shape: MlpShape) -> MlpLayers:
    """``count`` layers of ``batch`` sequences in shuffled slots, rings half full; the null slot is NaN."""
    heads, size, hidden, chunk = shape.heads, shape.size, shape.hidden, shape.chunk
    each, at = (count, batch + 1, heads), chunk // 2

    def random(*rest: int, scale: float, dtype: torch.dtype) -> Tensor:
        tensor = torch.empty(*each, *rest, dtype=dtype).normal_(0, scale)
        tensor[:, 0] = torch.nan
        return tensor

    def ring(width: int, scale: float) -> Tensor:
        return random(chunk, width, scale=scale * width**-0.5, dtype=shape.ring)

    decay = -(0.01 * torch.rand(*each, chunk)).cumsum(-1)
    position = torch.full(each, at, dtype=torch.int32)
    pools = {
        "inner": random(5, hidden, size, scale=0.1 * size**-0.5, dtype=shape.dtype),
        "outer": random(3, size, hidden, scale=0.1 * hidden**-0.5, dtype=shape.dtype),
        "gate_outer": random(2, hidden, scale=0.1 * hidden**-0.5, dtype=shape.dtype),
        "ring_k": ring(size, 1.0),
        "ring_v": ring(size, 1.0),
        "ring_e": ring(size, 0.3),
        "ring_u": ring(hidden, 0.03),
        "ring_a": ring(hidden, 0.5),
        "ring_gate": torch.stack([0.1 * torch.rand(*each, chunk), decay], -1),
        "position": position,
    }
    return MlpLayers(
        rule=TitansRule(chunk_size=chunk),
        states=[MlpState(**{name: tensor[layer] for name, tensor in pools.items()}) for layer in range(count)],
        weights=[mlp_weights(heads, size, hidden) for _ in range(count)],
        x=torch.randn(count, batch, heads, size).to(BF16),
        q=torch.randn(count, batch, heads, size).to(BF16),
        slots=torch.randperm(batch).to(torch.int32) + 1,
        position=position,
    )


def mlp_weights(heads: int, size: int, hidden: int) -> MlpWeights:
    """bf16 memories whose gates write little and retain much."""
    return MlpWeights(
        inner=(torch.randn(heads, 5, hidden, size) / size**0.5).to(BF16),
        outer=(0.5 * torch.randn(heads, 3, size, hidden) / hidden**0.5).to(BF16),
        gate_outer=(torch.randn(heads, 2, hidden) / hidden**0.5).to(BF16),
        gate_bias=torch.tensor([0.0, 6.0]).expand(heads, 2).to(BF16),
    )
