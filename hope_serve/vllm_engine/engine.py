"""The ``Engine`` that reads with vLLM; what it is to learn, another engine learns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from torch import Tensor

from hope_serve.api import ModelInfo
from hope_serve.api.engine import Events, GenerateTask, LearnTask, Taught
from hope_serve.config import EngineConfig
from hope_serve.engine.loop import EngineLoop
from hope_serve.engine.meter import Meter
from hope_serve.engine.reading import SequenceEngine
from hope_serve.engine.scheduler import Scheduler
from hope_serve.engine_config import VllmConfig
from hope_serve.errors import FailedPrecondition, InvalidRequest
from hope_serve.metrics import Metrics
from hope_serve.vllm_engine.model import VllmModel
from hope_serve.vllm_engine.starting import check_vllm, started
from hope_serve.vllm_engine.stepper import VllmStepper


class VllmEngine(SequenceEngine):
    """Memories and conversations are the native engine's, byte for byte, so that one store serves both.

    Args:
        model: what vLLM is told of the checkpoint.
        info: what GetModel answers. On a device vLLM takes the first, or as many as ``vllm.tensor_parallel_size`` says.

    Raises:
        ConfigError: vLLM is missing, or of a version that does not fit.
    """

    def __init__(
        self, model: VllmModel, info: ModelInfo, config: EngineConfig, vllm: VllmConfig, metrics: Metrics
    ) -> None:
        check_vllm()
        self.info = replace(info, deterministic=False)
        self._model, self._config, self._vllm = model, config, vllm
        self._stepper: VllmStepper | None = None
        scheduler = Scheduler(max_step_tokens=config.max_batch_tokens, max_queue_tokens=config.max_queue_tokens)
        loop = EngineLoop(scheduler, self._make, Meter(metrics, scheduler, learns=False))
        super().__init__(loop, stuck_seconds=config.stuck_seconds, shares_openings=False)
        metrics.memory_slots().set(config.max_slots)

    async def close(self) -> None:
        """See ``Engine.close``."""
        await super().close()
        if self._stepper is not None:
            await asyncio.to_thread(self._stepper.close)
            self._stepper = None

    async def generate(self, task: GenerateTask[Tensor, Any]) -> AsyncGenerator[Events[Any]]:
        """See ``Engine.generate``.

        Raises:
            InvalidRequest: more tokens than vLLM has room for, or a seed that it cannot keep to.
        """
        self._check(task)
        async with aclosing(super().generate(task)) as events:
            async for event in events:
                yield event

    async def learn(self, task: LearnTask[Any]) -> Taught[Any]:  # noqa: ARG002
        """Raises FailedPrecondition: vLLM has no backward pass."""
        raise FailedPrecondition(
            "vLLM learns nothing: send Adapt to a server whose engine.role is adapt or both", reason="ROLE"
        )

    def _check(self, task: GenerateTask[Tensor, Any]) -> None:
        sampling, most = task.sampling, self._model.max_context_tokens
        if len(task.prompt) + 1 + sampling.max_tokens > most and not self._model.rereads:
            raise InvalidRequest(
                "sampling.max_tokens",
                f"{len(task.prompt)} tokens of the prompt and {sampling.max_tokens} of the answer are more than the "
                f"{most} that vLLM was given room for; send less, or serve with a larger engine.max_prompt_tokens",
                reason="CONTEXT_FULL",
            )
        if self.info.device == "cpu" and sampling.seed is not None and not sampling.is_greedy:
            raise InvalidRequest(
                "sampling.seed",
                f"{sampling.seed} cannot be kept to by vLLM on a CPU; leave it out, set temperature to 0, or ask a "
                "server whose engine.backend is native",
            )

    def _make(self, scheduler: Scheduler, meter: Meter) -> VllmStepper:
        """vLLM; on the thread that steps it."""
        vllm = started(self._model, self._config, self._vllm, device=self.info.device)
        self._stepper = VllmStepper(scheduler, meter, vllm, self._model, self._config.max_slots)
        return self._stepper
