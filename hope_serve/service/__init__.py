"""Between the face and the engine: text, stop strings, conversations, and the care of memories."""

from hope_serve.service.service import Service

__all__ = ["Service"]
