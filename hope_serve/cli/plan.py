"""What a checkpoint will take, from its config and the header of its weights: no weight is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from hope_serve.engine.plan import DevicePlan, memory_bytes
from hope_serve.model.checkpoint import CONFIG, CheckpointError, planned_config
from hope_serve.model.hope import HopeModel
from hope_serve.model.serving.precision import Precision


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Bytes on the device, except ``memory_bytes``: one user's memory in the store."""

    name: str
    num_parameters: int
    weight_bytes: int
    slot_bytes: int
    lesson_bytes: int
    memory_bytes: int


def memory_plan(folder: Path, *, device: str = "cpu", state: str = "auto") -> MemoryPlan:
    """Plan for the checkpoint in ``folder``.

    Raises:
        CheckpointError: no checkpoint there, or one that is not allowed.
    """
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder} has no {CONFIG}; name the folder of a checkpoint with --checkpoint")
    config = planned_config(folder)
    with torch.device("meta"):
        model = HopeModel(config)
    plan = DevicePlan.of(model, Precision.of(config, device, state=state))
    return MemoryPlan(
        name=config.name,
        num_parameters=sum(weight.numel() for weight in model.state_dict().values()),
        weight_bytes=plan.weights,
        slot_bytes=plan.slot,
        lesson_bytes=plan.lesson,
        memory_bytes=memory_bytes(config),
    )
