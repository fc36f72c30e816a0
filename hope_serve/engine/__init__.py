"""Plan, load, run, commit, reply: one loop that batches every request."""

from hope_serve.engine.engine import Engine
from hope_serve.engine.memories import Memories

__all__ = ["Engine", "Memories"]
