"""The engine of this project: HOPE models on one device, everybody in one batch."""

from __future__ import annotations

import asyncio
import math

from hope_serve.api import ModelInfo
from hope_serve.api.engine import LearnTask, Purpose, Taught
from hope_serve.config import EngineConfig
from hope_serve.engine.lesson import Lesson
from hope_serve.engine.listeners import Pending
from hope_serve.engine.loop import EngineLoop
from hope_serve.engine.memory import Learned
from hope_serve.engine.meter import Meter
from hope_serve.engine.plan import DevicePlan, check_fit, lessons_at_once, model_info
from hope_serve.engine.pools import Pools
from hope_serve.engine.practice import practise_lessons
from hope_serve.engine.reading import SequenceEngine
from hope_serve.engine.reports import lesson_metrics
from hope_serve.engine.runner import Runner
from hope_serve.engine.scheduler import Scheduler
from hope_serve.engine.sequence import Sequence
from hope_serve.engine.stepper import Device, Stepper
from hope_serve.engine.teaching import Teaching
from hope_serve.metrics import Metrics
from hope_serve.model.serving.model import Loaded, ServedModel, kind_of
from hope_serve.model.serving.precision import Precision


class NativeEngine(SequenceEngine):
    """``api.engine.Engine`` on torch: memories are rows of bytes on the host, as the pools lay them out.

    Args:
        checkpoint: the model to serve, on the CPU.
        device: where it runs.
        reads: whether it is asked to; what it measures of readers is another engine's otherwise.
    """

    def __init__(
        self, checkpoint: Loaded, config: EngineConfig, metrics: Metrics, *, device: str = "cpu", reads: bool = True
    ) -> None:
        self._checkpoint, self._config, self._device = checkpoint, config, device
        self._kind = kind_of(checkpoint.model)
        self._precision = Precision.of(self._kind.config, device, state=config.state_dtype)
        self.info: ModelInfo = model_info(self._kind, checkpoint.fingerprint, config, self._precision, device)
        align = math.lcm(*self._kind.cut_tokens) if config.deterministic else 0
        scheduler = Scheduler(
            max_step_tokens=config.max_batch_tokens,
            max_queue_tokens=config.max_queue_tokens,
            max_lessons=config.max_lessons,
            max_lesson_tokens=1 if lessons_at_once(config, device) == 1 else 1 << 30,
            adapt_step_seconds=config.adapt_step_ms / 1000,
            align=align,
        )
        loop = EngineLoop(scheduler, self._make, Meter(metrics, scheduler, reads=reads))
        super().__init__(loop, stuck_seconds=config.stuck_seconds)
        if reads:
            metrics.memory_slots().set(config.max_slots)

    async def learn(self, task: LearnTask[Learned]) -> Taught[Learned]:
        """See ``Engine.learn``."""
        before = task.before
        lesson = Lesson(
            tokens=task.tokens, before=await asyncio.to_thread(before.row), cadence=before.cadence, options=task.options
        )
        sequence = await self._finished(
            Sequence(
                purpose=Purpose.LEARN,
                tokens=[],
                listener=Pending(),
                lesson=lesson,
                deadline=task.deadline,
                owner=task.owner,
            )
        )
        after = await asyncio.to_thread(before.moved_to, lesson.after, lesson.cadence)
        metrics = await asyncio.to_thread(lesson_metrics, lesson, before, after)
        return Taught(learned=after, metrics=metrics, timings=sequence.timings())

    def _make(self, scheduler: Scheduler, meter: Meter) -> Stepper:
        """What lives on the device; on the thread that owns it."""
        config = self._config
        check_fit(DevicePlan.of(self._kind, self._precision, config), config, self._device)
        model = ServedModel(
            self._checkpoint.model,
            device=self._device,
            precision=self._precision,
            max_context_tokens=config.max_context_tokens,
        )
        pools = Pools(model, config.max_slots, poison=config.poison_slots)
        meter.watch(pools.table)
        device = Device(
            pools=pools,
            runner=Runner(model, pools, deterministic=config.deterministic),
            teaching=Teaching(model, config.max_lessons, alone=config.deterministic, poison=config.poison_slots),
            looks_ahead=model.device.type == "cuda",
        )
        if model.device.type == "cuda":
            device.runner.warm_up()
            if config.role != "generate":
                practise_lessons(device.teaching)
        return Stepper(scheduler, device, meter)
