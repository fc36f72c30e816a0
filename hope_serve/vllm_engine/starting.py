"""vLLM itself, started in this process with HOPE's models in it."""

from __future__ import annotations

import secrets
from typing import Any

from hope_serve.config import ConfigError, EngineConfig
from hope_serve.engine_config import VllmConfig, vllm_environment
from hope_serve.vllm_engine.model import VllmModel
from hope_serve.vllm_plugin import CONNECTOR, FORMAT, UnsupportedVllm, installed_vllm


def check_vllm() -> str:
    """The version that would be used.

    Raises:
        ConfigError: vLLM is missing, or of a version that does not fit; the message names the remedy.
    """
    try:
        return installed_vllm()
    except UnsupportedVllm as error:
        raise ConfigError(str(error)) from error


def started(model: VllmModel, config: EngineConfig, vllm: VllmConfig, *, device: str) -> Any:
    """An engine of vLLM's that steps on the caller's thread.

    Raises:
        ConfigError: see ``check_vllm``; another engine of vLLM's runs in this process, whose slots would be filled; or
            vLLM's own refusal, such as of a model that does not fit.
    """
    check_vllm()
    vllm_environment()
    from vllm import EngineArgs
    from vllm.distributed.kv_transfer import has_kv_transfer_group
    from vllm.v1.engine.llm_engine import LLMEngine
    from vllm.v1.executor import Executor

    from hope_serve.vllm_plugin import register

    if has_kv_transfer_group():
        raise ConfigError("vLLM runs in this process already, and knows one engine a process; start another server")
    register()
    arguments = _arguments(model, config, vllm, device)
    try:
        settings = EngineArgs(**arguments).create_engine_config()
        return LLMEngine(settings, Executor.get_class(settings), log_stats=False, multiprocess_mode=False)
    except ValueError as error:
        raise ConfigError(
            f"vLLM does not take {model.folder} with these settings of [engine] and [vllm]: {error}"
        ) from error


def _arguments(model: VllmModel, config: EngineConfig, vllm: VllmConfig, device: str) -> dict[str, Any]:
    cards = vllm.tensor_parallel_size
    arguments: dict[str, Any] = {
        "model": str(model.folder),
        "config_format": FORMAT,
        "load_format": FORMAT,
        "skip_tokenizer_init": True,
        "seed": secrets.randbits(31),  # it seeds this whole process, whose draws are to be nobody's guess
        "generation_config": "vllm",
        "hf_overrides": dict(model.overrides),
        "dtype": model.dtype,
        "max_model_len": model.max_context_tokens + 1,  # a text is weighed by one token more
        "max_num_seqs": config.max_slots,
        "max_num_batched_tokens": max(config.max_batch_tokens, config.max_slots),
        "enable_chunked_prefill": True,
        "enable_prefix_caching": False,  # what a prefix leaves behind depends on the memory that read it
        "async_scheduling": False,  # a slot is handed back as it was after the last token that counts
        "kv_transfer_config": {"kv_connector": CONNECTOR, "kv_role": "kv_both"},
        "distributed_executor_backend": "uni" if cards == 1 else "mp",
        "tensor_parallel_size": cards,
        "gpu_memory_utilization": vllm.memory_share,
        "disable_log_stats": True,
        "compilation_config": {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY" if device != "cpu" else "NONE"},
    }
    if vllm.cache_bytes:
        arguments["kv_cache_memory_bytes"] = vllm.cache_bytes
    if vllm.attention_backend:
        arguments["attention_backend"] = _attention_backend(vllm.attention_backend)
    return arguments


def _attention_backend(name: str) -> Any:
    from vllm.v1.attention.backends.registry import AttentionBackendEnum

    known = AttentionBackendEnum.__members__
    if name not in known:
        raise ConfigError(f"vllm.attention_backend is {name!r}; this vLLM knows {', '.join(known)}")
    return known[name]
