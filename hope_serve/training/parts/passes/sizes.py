"""The constants of a layer that its passes take."""

from __future__ import annotations

from typing import NamedTuple

from hope_serve.model.attention import AttentionShape


class Sizes(NamedTuple):
    """copied: a key head for every head; eps: of the norms; scale: of the scores."""

    num_key_heads: int
    copied: bool
    eps: float
    scale: float

    @classmethod
    def of(cls, shape: AttentionShape, *, copied: bool = False) -> Sizes:
        """Those of a model."""
        return cls(shape.num_key_heads, copied, shape.norm_eps, shape.head_size**-0.5)
