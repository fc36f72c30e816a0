"""The shapes every Titans op agrees on: the rule's constants, a memory's weights and its state.

Shape letters: B sequences, T tokens, H heads, D head size, C chunk size, F hidden size of an MLP memory.
Equation numbers are those of "Nested Learning" (arXiv 2512.24695).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import NamedTuple, Self

import torch
from torch import Tensor

MEMORIES = ("key", "value", "eta", "alpha", "memory")
RESIDUAL = ("key", "value", "memory")

Matrices = tuple[Tensor, ...]
"""One memory's: (W,) of a linear memory, (W2, W1) of an MLP."""


@dataclass(frozen=True, kw_only=True)
class TitansRule:
    """The constants of the update rule.

    Attributes:
        chunk_size: tokens after which the snapshot behind k, v, eta and alpha moves (Eq 90).
        memory_chunk_size: the same for the memory that is read; 0 means ``chunk_size``.
        eta_max: upper end of the write rate, eta = eta_max * sigmoid(gate).
        alpha_min: lower end of the retention, alpha = alpha_min + (1 - alpha_min) * sigmoid(gate).
        causal: True reads every write before the token (Eq 86); False only the snapshot (Eq 90).
        retain_delta: True decays only what was learned online; False the initial state too.
        dgd_hidden: for MLP memories, the delta rule for W1 as well, keyed by its hidden activation.
    """

    chunk_size: int
    memory_chunk_size: int = 0
    eta_max: float = 0.1
    alpha_min: float = 0.5
    causal: bool = True
    retain_delta: bool = True
    dgd_hidden: bool = False

    def __post_init__(self) -> None:
        for name in ("chunk_size", "memory_chunk_size"):
            if getattr(self, name) < (name == "chunk_size"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive")
        if not 0 < self.eta_max <= 2:
            raise ValueError(f"eta_max is {self.eta_max}; it must lie in (0, 2]")
        if not 0 <= self.alpha_min < 1:
            raise ValueError(f"alpha_min is {self.alpha_min}; it must lie in [0, 1)")

    @property
    def chunk_sizes(self) -> tuple[int, ...]:
        """One clock when both chunk sizes agree, else the projections' and the memory's."""
        memory = self.memory_chunk_size or self.chunk_size
        return (self.chunk_size,) if memory == self.chunk_size else (self.chunk_size, memory)


@dataclass(frozen=True, kw_only=True)
class LinearWeights:
    """Initial state of five linear memories, the residual's identity included.

    key, value, memory: [H, D, D], used as ``W @ x``; gates: [H, 2, D], rows eta and alpha; gate_bias: [H, 2].
    """

    key: Tensor
    value: Tensor
    memory: Tensor
    gates: Tensor
    gate_bias: Tensor

    @cached_property
    def joined(self) -> Tensor:
        """[H, D, 2 D + 2]: key, value and both gates side by side, input axis first, for one product."""
        return torch.cat([self.key, self.value, self.gates], 1).mT.contiguous()

    @cached_property
    def joined_bias(self) -> Tensor:
        """[H, 1, 2 D + 2]: what is added to a row's product with ``joined``; 0 for key and value."""
        rows = self.joined.new_zeros(len(self.key), 1, self.joined.shape[2])
        rows[:, 0, -2:] = self.gate_bias
        return rows


@dataclass(frozen=True, kw_only=True)
class MlpWeights:
    """Initial state of five 2-layer memories M(x) = x + W1 silu(W2 x); the gates have one output and no residual.

    inner: [H, 5, F, D], W2 in the order of ``MEMORIES``; outer: [H, 3, D, F], W1 in the order of ``RESIDUAL``;
    gate_outer: [H, 2, F], W1 of eta and alpha; gate_bias: [H, 2].
    """

    inner: Tensor
    outer: Tensor
    gate_outer: Tensor
    gate_bias: Tensor


class SlotViews(NamedTuple):
    """One slot of a ``LinearState`` in the forms in which a token reads and writes it; every tensor is a view.

    matrix: [H, D, D]. keys, writes: [H, C, D]; key_columns: [H, D, C], the keys as columns. eta, decay: [H, C, 1], the
    two gates as columns; decay_row: [H, 1, C]. position: [H].
    """

    matrix: Tensor
    keys: Tensor
    key_columns: Tensor
    writes: Tensor
    eta: Tensor
    decay: Tensor
    decay_row: Tensor
    position: Tensor


@dataclass(frozen=True, kw_only=True)
class LinearState:
    """One clock of a head's single matrix (kernels/hope_kernels/titans_chunk/README.md derives it).

    Token s of a chunk writes one row: ``M_s = alpha_s M_{s-1} - k_s w_s^T``. Until the chunk ends the rows wait in
    a ring and ``matrix`` stays as it was. The last row in ``ring_w`` is *open*: it holds
    p = eta (g k + k - v), g the decay before it, and p's product with ``matrix`` is taken when ``matrix`` is next read.
    So a token needs one read of ``matrix``: the open row shares it with the next token's x and q.

    The first axis is the sequence, or the slot of a pool; slot 0 of a pool is the null slot, which nothing reads
    or writes.

    matrix: [B, H, D, D], input axis first: read as ``x @ matrix``; the snapshot at the chunk's start.
    ring_k, ring_w: [B, H, C, D]; ring_gate: [B, H, C, 2] = (eta, log of the decay from the chunk's start to after
    the row); all zero from ``position`` on. position: [B, H] int32, rows in the ring.
    """

    matrix: Tensor
    ring_k: Tensor
    ring_w: Tensor
    ring_gate: Tensor
    position: Tensor

    @classmethod
    def fresh(
        cls,
        batch: int,
        weights: LinearWeights,
        chunk_size: int,
        *,
        dtype: torch.dtype | None = None,
        ring_dtype: torch.dtype | None = None,
    ) -> Self:
        """A memory that has learned nothing, on the device of ``weights``.

        Args:
            batch: sequences, or slots of a pool.
            dtype: of the matrix; None takes that of ``weights``.
            ring_dtype: of the ring's rows; None takes ``dtype``.

        Raises:
            ValueError: a matrix in bfloat16, which loses more than 1 % of what it holds by being rounded once a chunk.
        """
        heads, size, _ = weights.key.shape
        dtype = dtype or weights.key.dtype
        if dtype is torch.bfloat16:
            raise ValueError("dtype is bfloat16, too coarse for a state that is rounded at every chunk: take float16")
        zeros = partial(torch.zeros, device=weights.key.device)
        gate_dtype = torch.float64 if dtype is torch.float64 else torch.float32
        return cls(
            matrix=zeros(batch, heads, size, size, dtype=dtype),
            ring_k=zeros(batch, heads, chunk_size, size, dtype=ring_dtype or dtype),
            ring_w=zeros(batch, heads, chunk_size, size, dtype=ring_dtype or dtype),
            ring_gate=zeros(batch, heads, chunk_size, 2, dtype=gate_dtype),
            position=zeros(batch, heads, dtype=torch.int32),
        )

    def slot(self, index: int) -> SlotViews:
        """One slot; made once, as a decode step on a CPU would spend longer on making views than on reading them."""
        found = self._slots.get(index)
        if found is None:
            keys, gate = self.ring_k[index], self.ring_gate[index]
            found = self._slots[index] = SlotViews(
                matrix=self.matrix[index],
                keys=keys,
                key_columns=keys.mT,
                writes=self.ring_w[index],
                eta=gate[..., :1],
                decay=gate[..., 1:],
                decay_row=gate[..., 1][:, None],
                position=self.position[index],
            )
        return found

    @cached_property
    def _slots(self) -> dict[int, SlotViews]:
        return {}

    def with_(self, **changes: Tensor) -> Self:
        """A copy that differs in the named tensors."""
        return replace(self, **changes)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name; the first axis of each is the sequence."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def with_tensors(self, named: Mapping[str, Tensor]) -> Self:
        """The same structure around the tensors that ``tensors`` would name."""
        return type(self)(**named)


@dataclass(frozen=True, kw_only=True)
class MemoriesState:
    """One clock of five separate memories: matrices of each, and the raw rows written since the snapshot.

    matrices: by memory name, the tuple (W,) of a linear or (W2, W1) of an MLP memory, each [B, H, out, in]:
    what was learned (``retain_delta``) or the whole matrix. ring_k, ring_v: [B, H, C, D];
    ring_gate: [B, H, C, 2] = (eta, alpha); position: [B] int32.
    A clock that moves only some memories carries only those.
    """

    matrices: dict[str, tuple[Tensor, ...]]
    ring_k: Tensor
    ring_v: Tensor
    ring_gate: Tensor
    position: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name; the first axis of each is the sequence."""
        named = {f"{name}.{i}": m for name, ms in self.matrices.items() for i, m in enumerate(ms)}
        rings = ("ring_k", "ring_v", "ring_gate", "position")
        return named | {name: getattr(self, name) for name in rings}

    def with_tensors(self, named: Mapping[str, Tensor]) -> Self:
        """The same structure around the tensors that ``tensors`` would name."""
        matrices = {name: tuple(named[f"{name}.{i}"] for i in range(len(ms))) for name, ms in self.matrices.items()}
        rings = {name: t for name, t in named.items() if "." not in name}
        return type(self)(matrices=matrices, **rings)
