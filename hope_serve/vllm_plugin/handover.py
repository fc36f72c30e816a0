"""What a request brings with it and takes away: the contents of its slot, on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

KEY = "hope"
"""Under which ``kv_transfer_params`` hold a ``Handover``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Handover:
    """A request's slot.

    loads: for every part of a layer's slot its content [L, *shape] over all layers, or None where it begins afresh.
    saved: called on the engine's thread with the contents at the request's end; None when nobody wants them.
    """

    loads: Sequence[Tensor | None]
    saved: Callable[[tuple[Tensor, ...]], None] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Handover:
        """Parameters are copied for every request; megabytes that nobody writes to need not be."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """For the workers of several cards: pickle passes the bytes on beside its message, not copied into it."""
        packed = [t if t is None else (t.reshape(-1).view(torch.uint8).numpy(), t.dtype, t.shape) for t in self.loads]
        return _received, (packed, self.saved)


def _received(packed: list[Any], saved: Any) -> Handover:
    """The bytes are the message's, which is gone when the next one comes."""
    loads = [load and torch.from_numpy(load[0].copy()).view(load[1]).view(load[2]) for load in packed]
    return Handover(loads=loads, saved=saved)


def params(handover: Handover) -> dict[str, Any]:
    """As ``SamplingParams.extra_args``."""
    return {"kv_transfer_params": {KEY: handover}}


def of(request: Any) -> Handover | None:
    """What a vLLM request brought."""
    found: Handover | None = (request.kv_transfer_params or {}).get(KEY)
    return found
