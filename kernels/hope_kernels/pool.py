"""Slots of a pool as a batch in working precision, and back: how the reference forms reach a pool."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from hope_kernels.layout import LinearState, LinearWeights, MlpWeights
from hope_kernels.mlp_state import MlpState

State = TypeVar("State", LinearState, MlpState)
Weights = TypeVar("Weights", LinearWeights, MlpWeights)


def working_dtype(x: Tensor) -> torch.dtype:
    """fp32, or fp64 for fp64 rows."""
    return torch.float64 if x.dtype is torch.float64 else torch.float32


def in_use(slots: Tensor | None, count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, slots) of the sequences that have a slot; without ``slots`` sequence b has slot b."""
    if slots is None:
        every = torch.arange(count, device=like.device)
        return every, every
    rows = slots.nonzero()[:, 0]
    return rows, slots[rows].long()


def take(state: State, slots: Tensor, dtype: torch.dtype) -> State:
    """A copy of ``slots`` in ``dtype``."""
    named = {name: tensor[slots] for name, tensor in state.tensors().items()}
    return state.with_tensors({n: t if n == "position" else t.to(dtype) for n, t in named.items()})


def put(state: State, slots: Tensor, new: State) -> None:
    """Write ``new`` into ``slots``, rounded to the pool's dtypes."""
    moved = new.tensors()
    for name, tensor in state.tensors().items():
        tensor[slots] = moved[name].to(tensor.dtype)


def put_rings(state: LinearState, slots: Tensor, new: LinearState) -> None:
    """As ``put``, but for the matrix, which is as it was."""
    moved = new.tensors()
    for name, tensor in state.tensors().items():
        if name != "matrix":
            tensor[slots] = moved[name].to(tensor.dtype)


def weights_in(weights: Weights, dtype: torch.dtype) -> Weights:
    """The weights in ``dtype``."""
    return replace(weights, **{field.name: getattr(weights, field.name).to(dtype) for field in fields(weights)})
