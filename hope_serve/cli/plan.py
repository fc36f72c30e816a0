"""What a checkpoint will take, from its config alone: no weight is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from hope_serve.engine.tensors import TensorCodec
from hope_serve.model.checkpoint import CONFIG, CheckpointError, read_config
from hope_serve.model.cms_state import CmsState
from hope_serve.model.hope import HopeModel


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Bytes on the device, except ``memory_bytes``: one user's memory in the store."""

    name: str
    num_parameters: int
    weight_bytes: int
    slot_bytes: int
    memory_bytes: int


def memory_plan(folder: Path) -> MemoryPlan:
    """Plan for the checkpoint in ``folder``.

    Raises:
        CheckpointError: no config there, or one that is not allowed.
    """
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder} has no {CONFIG}; name the folder of a checkpoint with --checkpoint")
    config = read_config(folder / CONFIG)
    with torch.device("meta"):
        model = HopeModel(config)
    weights = model.state_dict().values()
    deltas = [tensor for level in CmsState.fresh(model, 1).levels for tensor in level.delta]
    return MemoryPlan(
        name=config.name,
        num_parameters=sum(weight.numel() for weight in weights),
        weight_bytes=sum(weight.numel() * weight.element_size() for weight in weights),
        slot_bytes=model.fresh_state(1).num_bytes() + sum(delta.numel() * delta.element_size() for delta in deltas),
        memory_bytes=TensorCodec(model, "").memory_bytes,
    )
