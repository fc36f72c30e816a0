"""Which steps are taken: a gradient through an update explodes now and then, and clipped it still points astray."""

from __future__ import annotations

import math
from dataclasses import dataclass

RATIO = 15.0
"""A norm of so many times the usual one is an outlier; usual ones stay within three times."""
PATIENCE = 25
"""Outliers in a row after which what is usual has changed, and one is taken."""
MEMORY = 0.98


@dataclass(kw_only=True)
class Steadiness:
    """Follows the norms of gradients before clipping. ``left_out``: steps that were not taken so far."""

    usual: float = math.nan
    left_out: int = 0
    in_a_row: int = 0

    def takes(self, norm: float) -> bool:
        """Whether the step of this gradient is to be taken; one that is not finite never is."""
        outlier = norm > RATIO * self.usual and self.in_a_row < PATIENCE
        if outlier or not math.isfinite(norm):
            self.left_out += 1
            self.in_a_row += 1
            return False
        changed = math.isnan(self.usual) or self.in_a_row == PATIENCE
        self.usual = norm if changed else MEMORY * self.usual + (1 - MEMORY) * norm
        self.in_a_row = 0
        return True
