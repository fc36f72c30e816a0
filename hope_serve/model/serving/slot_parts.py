"""What a layer's slot holds where an engine of others keeps it, by name and in order."""

from __future__ import annotations

import torch

from hope_serve.model.cms_state import delta_shapes
from hope_serve.model.config import HopeConfig
from hope_serve.model.hope import HopeModel
from hope_serve.model.serving.precision import Precision
from hope_serve.model.serving.slab import Part
from hope_serve.model.serving.titans import slot_parts

OUTER = "0.delta.outer"
"""What a memory of the attention kind is made of: B of every layer."""


def titans_parts(config: HopeConfig, precision: Precision) -> dict[str, Part]:
    """The deltas of the online levels, then a layer's state, whose short counters come last."""
    deltas = {name: Part(shape[1:], precision.deltas) for name, shape in delta_shapes(config).items()}
    with torch.device("meta"):
        state = slot_parts(HopeModel(config).blocks[0].titans, precision)
    return dict(sorted((deltas | state).items(), key=lambda item: item[0].endswith(".position")))
