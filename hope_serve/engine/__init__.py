"""Plan, load, run, reply: one thread that batches everybody's work on one device."""

from __future__ import annotations

from hope_serve.config import EngineConfig
from hope_serve.engine.memory import MemoryForm
from hope_serve.engine.native import NativeEngine
from hope_serve.engine.snapshots import Snapshots
from hope_serve.model.checkpoint import Checkpoint
from hope_serve.model.serving.precision import Precision
from hope_serve.model.serving.state import state_layout

__all__ = ["NativeEngine", "Snapshots", "native_codec"]


def native_codec(checkpoint: Checkpoint, config: EngineConfig, *, device: str) -> Snapshots:
    """What a ``NativeEngine``'s memories and conversations look like to the store."""
    precision = Precision.of(checkpoint.config, device, state=config.state_dtype)
    form = MemoryForm(checkpoint, precision, pinned=device != "cpu")
    return Snapshots(form, state_layout(checkpoint.model, precision), checkpoint.fingerprint)
