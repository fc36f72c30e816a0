"""One model of the study: its gradient as a captured graph on a stream of its own, its scores, its bytes and time."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hope_serve.model.cms_state import cms_shapes
from hope_serve.model.config import HopeConfig
from hope_serve.model.hope import HopeModel
from hope_serve.training.config import LossConfig
from hope_serve.training.meta import episode_loss, recall, teach
from hope_serve.training.optimizers.language import draw_episodes, facts_stage, noise_stage
from hope_serve.training.outer import make_adamw
from hope_serve.training.plans import Plan
from hope_serve.training.stream import unpack

RATE, RATES_RATE, WARMUP, FINAL_SHARE = 2e-3, 1e-2, 50, 0.05
LOSS = LossConfig(answer=1.0, taught=0.3, text=0.0, unknown=0.1, blank=0.1)
FP16_BYTES = 2
TIMED_ADAPTS = 20
EXAMS: Mapping[str, tuple[Plan, str]] = {
    "recall": (Plan(name="recall", stages=(facts_stage(),) * 2, share=1.0), "with"),
    "after_noise": (Plan(name="noise", stages=(facts_stage(),) * 2 + (noise_stage(),) * 8, share=1.0), "with"),
    "after_lessons": (Plan(name="lessons", stages=(facts_stage(),) * 5, share=1.0), "oldest"),
    "corrected": (
        Plan(name="corrected", stages=(facts_stage(), noise_stage(), facts_stage()), share=1.0, corrects=True),
        "corrected",
    ),
}
"""Two lessons of four facts, asked at once; the same after eight of noise; the first of five; a corrected fact."""


class Learner:
    """Trains on the plans of ``TRAINED``; on a CUDA device ``step`` only launches, on ``stream``."""

    def __init__(self, config: HopeConfig, *, seed: int, device: str) -> None:
        torch.manual_seed(seed)
        self.model = HopeModel(config).to(device).requires_grad_()
        self.optimizer = make_adamw(self.model, rate=RATE, rates_rate=RATES_RATE, weight_decay=0.01)
        self.stream = torch.cuda.Stream() if device == "cuda" else None  # type: ignore[no-untyped-call]
        self._device = device
        self._graphs: dict[str, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._parts = torch.zeros(4)
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def step(self, plan: Plan, batch: list[Tensor], factor: float) -> None:
        """One step of the optimizer.

        ``batch``: tensors of the plan's ``Episodes``; on a device the very same ones at every call of that plan.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * factor
        if self.stream is None:
            self._parts = self._gradient(plan, batch)
            self._apply()
            return
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            if plan.name not in self._graphs:
                self._graphs[plan.name] = self._recorded(plan, batch)
            graph, self._parts = self._graphs[plan.name]
            graph.replay()
            self._apply()

    def losses(self) -> dict[str, float]:
        """The parts of the last step's loss."""
        return dict(zip(("answer", "unknown", "blank", "taught"), self._parts.tolist(), strict=True))

    def scores(self, *, episodes: int, seed: int) -> dict[str, float]:
        """Shares of right answers by ``EXAMS``, what the noise cost, the bytes of a memory, the time of an Adapt."""
        found = {}
        for name, (plan, group) in EXAMS.items():
            drawn = draw_episodes(plan, episodes, random.Random(f"exam {seed}"))  # noqa: S311
            moved = unpack(plan, [t.to(self._device) for t in drawn.tensors()])
            found[name] = recall(self.model, plan, moved)[group]
        found["forgotten_in_noise"] = found["recall"] - found["after_noise"]
        shapes = cms_shapes(self.model.config)
        found["memory_bytes"] = float(sum(math.prod(shape) for shape in shapes.values()) * FP16_BYTES)
        found["adapt_ms"] = 1000 * self._adapt_seconds()
        return found

    def tensors(self) -> dict[str, Tensor]:
        """Everything that training goes on from."""
        named = {f"model.{name}": t.detach() for name, t in self.model.named_parameters()}
        for name, parameter in self.model.named_parameters():
            named |= {f"{slot}.{name}": t for slot, t in self.optimizer.state[parameter].items()}
        return named

    def load(self, named: Mapping[str, Tensor]) -> None:
        """Go on from ``tensors``."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(named[f"model.{name}"])
                slots = ("step", "exp_avg", "exp_avg_sq")
                self.optimizer.state[parameter] = {slot: named[f"{slot}.{name}"].clone() for slot in slots}

    def _gradient(self, plan: Plan, batch: list[Tensor]) -> Tensor:
        for parameter in self.model.parameters():
            parameter.grad.zero_()  # type: ignore[union-attr]
        unknown = torch.ones((), device=self._device)
        loss, parts = episode_loss(self.model, plan, unpack(plan, batch), LOSS, unknown)
        loss.backward()  # type: ignore[no-untyped-call]
        return parts

    def _apply(self) -> None:
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    def _recorded(self, plan: Plan, batch: list[Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        for _ in range(2):
            self._gradient(plan, batch)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # One learner's graphs run one after the other, so they share their memory.
        pool = next((known.pool() for known, _ in self._graphs.values()), None)
        with torch.cuda.graph(graph, pool=pool, stream=self.stream):
            parts = self._gradient(plan, batch)
        return graph, parts

    def _adapt_seconds(self) -> float:
        """The median time of teaching one person one lesson of four facts."""
        plan = Plan(name="adapt", stages=(facts_stage(),), share=1.0)
        drawn = draw_episodes(plan, 1, random.Random(0))  # noqa: S311
        one = unpack(plan, [t.to(self._device) for t in drawn.tensors()])
        times = []
        for _ in range(TIMED_ADAPTS):
            start = time.perf_counter()
            teach(self.model, plan, one, create_graph=False).nll.item()
            times.append(time.perf_counter() - start)
        return statistics.median(times)


def rate_factor(step: int, progress: float) -> float:
    """Linear warm-up by steps, then a cosine by progress."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return min(1.0, (step + 1) / WARMUP) * (FINAL_SHARE + (1 - FINAL_SHARE) * cosine)
