"""Synthetic tasks, drawn without end: recall of pairs, copying amid noise, a sequence compressed into one vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

IGNORED = -100


class Batch(NamedTuple):
    """inputs: ids [B, T]; targets: ids [B, T] of what is asked at each position, or ``IGNORED``."""

    inputs: Tensor
    targets: Tensor


class Task(Protocol):
    """What is drawn. ``squeezed``: targets are told from the last position's vector alone, each with its place."""

    @property
    def name(self) -> str:
        """As reports call it."""

    @property
    def vocab_size(self) -> int:
        """Ids in use."""

    @property
    def squeezed(self) -> bool:
        """See above."""

    def batch(self, rows: int, draw: torch.Generator) -> Batch:
        """``rows`` sequences."""


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Keys with values, then every key again in another order: say its value."""

    pairs: int = 16
    keys: int = 64
    values: int = 64
    name: str = "recall"
    squeezed: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.pairs <= self.keys:
            raise ValueError(f"pairs is {self.pairs}; it must lie in [1, {self.keys}], the number of keys")

    @property
    def vocab_size(self) -> int:
        """Keys, then values."""
        return self.keys + self.values

    def batch(self, rows: int, draw: torch.Generator) -> Batch:
        """[rows, 4 pairs]: key value key value … key value key value; the second half's values are asked."""
        keys = _distinct(rows, self.keys, self.pairs, draw)
        values = torch.randint(self.keys, self.vocab_size, (rows, self.pairs), generator=draw)
        order = _distinct(rows, self.pairs, self.pairs, draw)
        told = torch.stack([keys, values], -1).flatten(1)
        asked = torch.stack([keys.gather(1, order), values.gather(1, order)], -1).flatten(1)
        whole = torch.cat([told, asked], 1)
        targets = torch.full_like(whole, IGNORED)
        targets[:, told.shape[1] :: 2] = asked[:, 1::2]
        return Batch(whole, targets)


@dataclass(frozen=True, kw_only=True)
class Copying:
    """Data tokens scattered amid noise, then as many marks: say the data in their order."""

    data: int = 16
    length: int = 64
    symbols: int = 32
    name: str = "copying"
    squeezed: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.data <= self.length:
            raise ValueError(f"data is {self.data}; it must lie in [1, {self.length}], the length")

    @property
    def vocab_size(self) -> int:
        """Symbols, the noise token and the mark."""
        return self.symbols + 2

    def batch(self, rows: int, draw: torch.Generator) -> Batch:
        """[rows, length + data]."""
        data = torch.randint(self.symbols, (rows, self.data), generator=draw)
        places = _distinct(rows, self.length, self.data, draw).sort(-1).values
        told = torch.full((rows, self.length), self.symbols).scatter(1, places, data)
        inputs = torch.cat([told, torch.full((rows, self.data), self.symbols + 1)], 1)
        targets = torch.cat([torch.full((rows, self.length), IGNORED), data], 1)
        return Batch(inputs, targets)


@dataclass(frozen=True, kw_only=True)
class Compression:
    """Symbols and a mark at the end, from whose vector alone every symbol is told by its place."""

    length: int = 24
    symbols: int = 16
    name: str = "compression"
    squeezed: bool = True

    @property
    def vocab_size(self) -> int:
        """Symbols and the mark."""
        return self.symbols + 1

    def batch(self, rows: int, draw: torch.Generator) -> Batch:
        """[rows, length + 1]."""
        data = torch.randint(self.symbols, (rows, self.length), generator=draw)
        mark = torch.full((rows, 1), self.symbols)
        return Batch(torch.cat([data, mark], 1), torch.cat([data, torch.full((rows, 1), IGNORED)], 1))


def _distinct(rows: int, size: int, count: int, draw: torch.Generator) -> Tensor:
    """[rows, count] different numbers below ``size``, in random order."""
    return torch.rand((rows, size), generator=draw).argsort(-1)[:, :count]
