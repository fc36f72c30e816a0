"""What a checkpoint will take, from its config and the header of its weights: no weight is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hope_serve.config import EngineConfig
from hope_serve.engine.plan import DevicePlan, memory_bytes
from hope_serve.model.checkpoint import CONFIG, CheckpointError
from hope_serve.model.load import planned_model
from hope_serve.model.serving.model import context_limit, kind_of
from hope_serve.model.serving.precision import Precision


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Bytes on the device, and ``memory_bytes``: one user's memory in the store.

    context_tokens: what a slot's cache has room for; 0 for state of constant size.
    """

    name: str
    num_parameters: int
    device: DevicePlan
    memory_bytes: int
    context_tokens: int


def memory_plan(
    folder: Path, *, part: Path | None = None, engine: EngineConfig | None = None, device: str = "cpu"
) -> MemoryPlan:
    """Plan for the checkpoint in ``folder``.

    Raises:
        CheckpointError: no checkpoint there, or one that is not allowed.
    """
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder} has no {CONFIG}; name the folder of a checkpoint with --checkpoint")
    engine = engine or EngineConfig()
    kind = kind_of(planned_model(folder, part))
    plan = DevicePlan.of(kind, Precision.of(kind.config, device, state=engine.state_dtype), engine)
    return MemoryPlan(
        name=kind.config.name,
        num_parameters=kind.num_parameters,
        device=plan,
        memory_bytes=memory_bytes(kind.config),
        context_tokens=context_limit(kind, engine.max_context_tokens),
    )
