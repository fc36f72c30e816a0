"""The tables [engine] and [vllm] of the configuration's file, and the variables that vLLM itself reads."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import Annotated, Literal

from hope_serve.section import Range, Section

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine's thread steps it
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the server's other threads share the cores
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # slots are filled through the first one
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CONFIGURE_LOGGING": "0",  # its lines go where the server's go
    "HF_HUB_OFFLINE": "1",
}


class EngineConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the engine may hold and batch, which one it is, and what this server takes on.

    backend: the engine that reads; lessons are the native one's in any case.
    role: generate takes no Adapt, adapt no Generate and no Score; the store is where such servers meet.
    """

    backend: Literal["native", "vllm"] = "native"
    role: Literal["both", "generate", "adapt"] = "both"

    deterministic: bool = False
    max_slots: Annotated[int, Range(1, 65_536)] = 64
    max_lessons: Annotated[int, Range(1, 1024)] = 8
    max_batch_tokens: Annotated[int, Range(1, 2**20)] = 2048
    adapt_step_ms: Annotated[float, Range(0.0, 60_000.0)] = 10.0
    state_dtype: Literal["auto", "float32", "float16"] = "auto"
    poison_slots: bool = False
    max_queue_tokens: Annotated[int, Range(1, 2**31)] = 2**20
    max_prompt_tokens: Annotated[int, Range(1, 2**24)] = 65_536
    max_context_tokens: Annotated[int, Range(1, 2**24)] = 2048
    max_adapt_tokens: Annotated[int, Range(2, 2**24)] = 65_536
    max_stream_tokens: Annotated[int, Range(2, 2**28)] = 2**20
    max_streams: Annotated[int, Range(1, 65_536)] = 64
    max_warm_bytes: Annotated[int, Range(0, 2**40)] = 2**27
    session_ttl_seconds: Annotated[float, Range(1.0, 3.2e7)] = 86_400.0
    stuck_seconds: Annotated[float, Range(0.1, 86_400.0)] = 300.0


class VllmConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How vLLM runs, with ``engine.backend = "vllm"``. Zero and empty are vLLM's own choice."""

    tensor_parallel_size: Annotated[int, Range(1, 64)] = 1
    memory_share: Annotated[float, Range(0.01, 1.0)] = 0.9
    cache_bytes: Annotated[int, Range(0, 2**44)] = 0
    attention_backend: str = ""


def vllm_environment(environ: MutableMapping[str, str] | None = None) -> None:
    """Set what vLLM reads of the environment, where nobody has set it; before vLLM is imported."""
    environ = os.environ if environ is None else environ
    for name, value in ENVIRONMENT.items():
        environ.setdefault(name, value)
