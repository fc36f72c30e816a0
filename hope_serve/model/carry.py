"""How a layer reaches the state of its sequences: many tokens functionally, one token in place."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from hope_kernels.layout import LinearState, LinearWeights, MemoriesState, MlpWeights, TitansRule
from hope_kernels.mlp_state import MlpState, knows_rule
from hope_kernels.titans_chunk.mlp_rows import memories_of, mlp_state_of
from hope_kernels.titans_chunk.op import titans_chunk
from hope_kernels.titans_chunk.reference import titans_chunk_reference
from hope_kernels.titans_chunk.reference_memories import titans_chunk_memories_reference
from hope_kernels.titans_commit.mlp_op import mlp_commit
from hope_kernels.titans_commit.op import titans_commit
from hope_kernels.titans_commit.reference import titans_commit_reference
from hope_kernels.titans_decode.op import titans_decode
from hope_kernels.titans_decode.reference import titans_decode_reference
from torch import Tensor

from hope_serve.model.state import CONV_TAIL, LayerState, TitansClock, tail_after


class Mixer(Protocol):
    """What a Titans layer asks of the state behind it."""

    def convolve(self, x: Tensor, kernel: Tensor) -> Tensor:
        """Causal depthwise convolution of width 4 over the tokens and the tail before them."""
        ...

    def mix(self, x: Tensor, q: Tensor, weights: LinearWeights | MlpWeights, rule: TitansRule) -> Tensor:
        """Read and write the layer's memories, token by token."""
        ...


class ChunkMixer:
    """T tokens of B sequences that stand at the same place: state in, state out, differentiable.

    Args:
        before: the layer's state.
        consumed: tokens that all sequences have behind them.
        lengths: [B], the tokens that count, when the rest is padding (within one chunk only).
    """

    def __init__(self, before: LayerState, *, consumed: int, lengths: Tensor | None = None) -> None:
        self.after = before
        self._consumed = consumed
        self._lengths = lengths

    def convolve(self, x: Tensor, kernel: Tensor) -> Tensor:
        """x: [B, T, d]; kernel: [d, 4]. The tail moves with the memories."""
        out = convolve(x, self.after.tail, kernel)
        self.after = LayerState(tail=tail_after(x, self.after.tail, self._lengths), clocks=self.after.clocks)
        return out

    def mix(self, x: Tensor, q: Tensor, weights: LinearWeights | MlpWeights, rule: TitansRule) -> Tensor:
        """x, q: [B, T, d]; the query comes before its L2 norm."""
        if runs_packed(x, weights, rule):
            out, clocks = _mix_packed(x, q, weights, rule, self.after.clocks, self._lengths)
            self.after = LayerState(tail=self.after.tail, clocks=clocks)
            return out
        x_BHTD, q_BHTD = (split_heads(z, weights).transpose(1, 2) for z in (x, q))
        positions = tuple(self._consumed % size for size in rule.chunk_sizes)
        linear = [clock for clock in self.after.clocks if isinstance(clock, LinearState)]
        separate = [
            memories_of(clock) if isinstance(clock, MlpState) else clock
            for clock in self.after.clocks
            if isinstance(clock, MlpState | MemoriesState)
        ]
        moved: tuple[TitansClock, ...]
        if isinstance(weights, LinearWeights) and linear:
            out, moved = titans_chunk_reference(
                x_BHTD, q_BHTD, weights, rule, tuple(linear), positions=positions, lengths=self._lengths
            )
        elif self._lengths is None:
            out, moved = titans_chunk_memories_reference(
                x_BHTD, q_BHTD, weights, rule, tuple(separate), positions=positions
            )
            if isinstance(weights, MlpWeights) and knows_rule(rule):
                moved = (mlp_state_of(moved[0], weights, rule),)
        else:
            raise ValueError("padded sequences need memories that decode in place: run them one by one")
        self.after = LayerState(tail=self.after.tail, clocks=moved)
        return out.transpose(1, 2).flatten(2)


class DecodeMixer:
    """One token of B sequences, each at its own place: the state changes in place.

    Linear memories with delta retention, and MLP memories whose rule ``MlpState`` knows.
    """

    def __init__(self, state: LayerState) -> None:
        self._state = state

    def convolve(self, x: Tensor, kernel: Tensor) -> Tensor:
        """x: [B, 1, d]; kernel: [d, 4]."""
        joined = torch.cat([self._state.tail, x], 1)
        self._state.tail.copy_(joined[:, 1:])
        return (joined * kernel.mT).sum(1, keepdim=True)

    def mix(self, x: Tensor, q: Tensor, weights: LinearWeights | MlpWeights, rule: TitansRule) -> Tensor:
        """x, q: [B, 1, d]; the query comes before its L2 norm."""
        x_BHD, q_BHD = (split_heads(z, weights)[:, 0] for z in (x, q))
        if runs_packed(x, weights, rule):
            out = titans_decode(x_BHD, q_BHD, weights, rule, _on_slots(self._state.clocks))
        else:
            assert isinstance(weights, LinearWeights)
            linear = tuple(clock for clock in self._state.clocks if isinstance(clock, LinearState))
            out = titans_decode_reference(x_BHD, q_BHD, weights, rule, linear)
        return out.flatten(1)[:, None]


def runs_packed(x: Tensor, weights: LinearWeights | MlpWeights, rule: TitansRule) -> bool:
    """Whether the ops take over: in a served model, whose initial memories are constants, and with a state on slots.

    Training differentiates twice and learns the initial memories, which the references alone do; on a CPU these are
    also the faster form of one-matrix memories.
    """
    on_slots = x.is_cuda and rule.retain_delta if isinstance(weights, LinearWeights) else knows_rule(rule)
    return on_slots and not weights.gate_bias.requires_grad


def _on_slots(clocks: tuple[TitansClock, ...]) -> tuple[LinearState | MlpState, ...]:
    """The clocks as the ops take them."""
    return tuple(clock for clock in clocks if isinstance(clock, LinearState | MlpState))


def _mix_packed(
    x: Tensor,
    q: Tensor,
    weights: LinearWeights | MlpWeights,
    rule: TitansRule,
    clocks: tuple[TitansClock, ...],
    lengths: Tensor | None,
) -> tuple[Tensor, tuple[TitansClock, ...]]:
    """x, q: [B, T, d] as rows behind each other, without padding; the clocks given stay as they are."""
    moved = tuple(
        clock.with_tensors({n: t.clone(memory_format=torch.contiguous_format) for n, t in clock.tensors().items()})
        for clock in _on_slots(clocks)
    )
    x_BTHD, q_BTHD = (split_heads(z, weights) for z in (x, q))
    if lengths is None:
        out = titans_chunk(x_BTHD.flatten(0, 1), q_BTHD.flatten(0, 1), weights, rule, moved)
        return out.view_as(x), moved
    counts = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
    starts = F.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    rows = titans_chunk(x_BTHD[counts], q_BTHD[counts], weights, rule, moved, starts=starts)
    padded = torch.zeros_like(x_BTHD)
    padded[counts] = rows
    return padded.flatten(2), moved


def commit_rows(clock: TitansClock, weights: LinearWeights | MlpWeights, rule: TitansRule, rows: list[int]) -> None:
    """Commit the full rings of some sequences, in place, for one clock of a layer."""
    if isinstance(clock, MlpState):
        assert isinstance(weights, MlpWeights)
        mlp_commit(weights, rule, clock)
        return
    assert isinstance(clock, LinearState)
    if clock.matrix.is_cuda:
        titans_commit(clock)
        return
    index = torch.tensor(rows, device=clock.matrix.device)
    named = clock.tensors()
    full = clock.with_tensors({name: tensor[index] for name, tensor in named.items()})
    for name, tensor in titans_commit_reference(full).tensors().items():
        named[name][index] = tensor


def split_heads(x: Tensor, weights: LinearWeights | MlpWeights) -> Tensor:
    """[B, T, d] to [B, T, H, D]."""
    return x.view(*x.shape[:2], weights.gate_bias.shape[0], -1)


def convolve(x: Tensor, tail: Tensor, kernel: Tensor) -> Tensor:
    """sum_i kernel[:, i] x_{t-3+i} over x [B, T, d] with the tail [B, 3, d] before it."""
    joined = torch.cat([tail, x], 1)
    return sum(joined[:, i : i + x.shape[1]] * kernel[:, i] for i in range(CONV_TAIL + 1))  # type: ignore[return-value]
