"""Which numbers a served model computes and keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch


class StatedPrecision(Protocol):
    """What a checkpoint's config says of its numbers."""

    @property
    def dtype(self) -> str:
        """Of its matrices."""
        ...

    @property
    def memory_dtype(self) -> str:
        """Of what users have learned."""
        ...


@dataclass(frozen=True, kw_only=True)
class Precision:
    """compute: weights and activations. state: Titans' matrices. ring: their pending rows. deltas: memories as read.

    Norms, gates, solves, logits and sampling are fp32 always.
    """

    compute: torch.dtype
    state: torch.dtype
    ring: torch.dtype
    deltas: torch.dtype

    def __post_init__(self) -> None:
        if self.state is torch.bfloat16:
            raise ValueError("state is bfloat16, too coarse for matrices that are rounded at every chunk: take float16")

    @property
    def wide(self) -> torch.dtype:
        """What sums and norms are taken in: fp32, or fp64 for a model that computes in it."""
        return torch.float64 if self.compute is torch.float64 else torch.float32

    @classmethod
    def of(cls, config: StatedPrecision, device: str, *, state: str = "auto") -> Precision:
        """fp32 on a CPU; elsewhere as the checkpoint says. ``state``: float32, float16 or auto (fp16 on a device)."""
        if torch.device(device).type == "cpu":
            wide = torch.float32
            return cls(compute=wide, state=wide, ring=wide, deltas=wide)
        compute: torch.dtype = getattr(torch, config.dtype)
        kept = torch.float16 if state == "auto" else getattr(torch, state)
        narrow = compute is not torch.float32
        return cls(
            compute=compute,
            state=kept if narrow else torch.float32,
            ring=torch.float16 if narrow else torch.float32,
            deltas=getattr(torch, config.memory_dtype),
        )
