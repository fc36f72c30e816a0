"""vLLM behind the ``Engine`` contract: this project's queue, deadlines and slots around its step, on one thread."""

from __future__ import annotations

from hope_serve.vllm_engine.engine import VllmEngine

__all__ = ["VllmEngine"]
