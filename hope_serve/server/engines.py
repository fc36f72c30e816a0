"""From the configuration's [engine] and [vllm] to the engine that serves a model."""

from __future__ import annotations

from typing import Any

import msgspec

from hope_serve.api.engine import Engine
from hope_serve.config import Config, ConfigError
from hope_serve.engine import NativeEngine
from hope_serve.engine.plan import model_info
from hope_serve.engine.roles import HalvedEngine
from hope_serve.metrics import Metrics
from hope_serve.model.serving.model import kind_of
from hope_serve.model.serving.precision import Precision
from hope_serve.model.serving.titans_kind import TitansKind
from hope_serve.server.loading import OpenedModel


def made_engine(model: OpenedModel, config: Config, metrics: Metrics, *, device: str) -> Engine[Any, Any, Any]:
    """The engine of the configured backend and role; not started.

    Raises:
        ConfigError: settings that contradict each other, or vLLM is not there.
    """
    engine, role = config.engine, config.engine.role
    if engine.backend == "native" and role == "both":
        return NativeEngine(model.loaded, engine, metrics, device=device)
    reads = learns = None
    if role != "adapt":
        if engine.backend == "vllm":
            reads = _vllm(model, config, metrics, device)
        else:
            reads = NativeEngine(model.loaded, engine, metrics, device=device)
    if role != "generate":
        one_slot = msgspec.structs.replace(engine, max_slots=1)  # it reads nothing
        learns = NativeEngine(model.loaded, one_slot, metrics, device=device, reads=False)
    return HalvedEngine(reads=reads, learns=learns)


def _vllm(model: OpenedModel, config: Config, metrics: Metrics, device: str) -> Engine[Any, Any, Any]:
    from hope_serve.vllm_engine import VllmEngine
    from hope_serve.vllm_engine.model import vllm_model

    engine, kind = config.engine, kind_of(model.loaded.model)
    _check(config, device, num_heads=0 if isinstance(kind, TitansKind) else kind.num_heads)
    precision = Precision.of(kind.config, device, state=engine.state_dtype)
    return VllmEngine(
        vllm_model(model.loaded, model.folder, engine, device=device, part=model.part),
        model_info(kind, model.loaded.fingerprint, engine, precision, device),
        engine,
        config.vllm,
        metrics,
    )


def _check(config: Config, device: str, *, num_heads: int) -> None:
    """``num_heads``: of attention; 0 of Titans."""
    if config.engine.deterministic:
        raise ConfigError(
            "engine.deterministic is true with engine.backend vllm, whose sums depend on who shares a step; "
            "set backend to native"
        )
    if device not in ("cpu", "cuda"):
        raise ConfigError(
            f"model.device is {device} with engine.backend vllm, which takes the first card that it sees; set "
            "model.device to cuda, and CUDA_VISIBLE_DEVICES to the cards meant"
        )
    cards = config.vllm.tensor_parallel_size
    if cards > 1 and not num_heads:
        raise ConfigError(f"vllm.tensor_parallel_size is {cards}, and models of Titans run on one card; set it to 1")
    if num_heads % cards:
        raise ConfigError(
            f"vllm.tensor_parallel_size is {cards}, among which the model's {num_heads} heads of attention cannot be "
            "divided; set it to a divisor of these"
        )
