"""Plan, load, run, reply: one thread that batches everybody's work on one device."""

from __future__ import annotations

from hope_serve.config import EngineConfig
from hope_serve.engine.memory import MemoryForm
from hope_serve.engine.native import NativeEngine
from hope_serve.engine.sessions import session_form
from hope_serve.engine.snapshots import Snapshots
from hope_serve.model.serving.model import Loaded, kind_of
from hope_serve.model.serving.precision import Precision

__all__ = ["NativeEngine", "Snapshots", "native_codec"]


def native_codec(checkpoint: Loaded, config: EngineConfig, *, device: str) -> Snapshots:
    """What a ``NativeEngine``'s memories and conversations look like to the store."""
    kind = kind_of(checkpoint.model)
    precision = Precision.of(kind.config, device, state=config.state_dtype)
    form = MemoryForm(kind, precision, pinned=device != "cpu")
    return Snapshots(form, session_form(kind, precision), checkpoint.fingerprint)
