"""What one sequence carries from token to token, as one row of bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_serve.model.hope import HopeModel
from hope_serve.model.serving.precision import Precision
from hope_serve.model.serving.slab import SlabLayout
from hope_serve.model.serving.titans import fresh_slot, slot_parts


def state_layout(model: HopeModel, precision: Precision) -> SlabLayout:
    """Where every layer's tensors lie, as ``{layer}.{name}``."""
    return SlabLayout(
        {
            f"{i}.{name}": part
            for i, block in enumerate(model.blocks)
            for name, part in slot_parts(block.titans, precision).items()
        }
    )


@torch.no_grad()
def fresh_state(model: HopeModel, precision: Precision) -> Tensor:
    """The row before the first token, on the host."""
    layers = enumerate(model.blocks)
    named = {f"{i}.{n}": t[0].cpu() for i, block in layers for n, t in fresh_slot(block.titans, precision).items()}
    return state_layout(model, precision).row(named)
