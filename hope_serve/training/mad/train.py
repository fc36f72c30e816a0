"""Trains one kind on one task for so many seconds, and says how many of the answers are right, while it learns."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_serve.training.mad.models import Answerer, make_model, num_parameters
from hope_serve.training.mad.tasks import IGNORED, Batch, Task

LEARNING_RATE = 2e-3
WARMUP_STEPS = 20
LOOKS = 12
"""How often accuracy is looked at on the way."""
TEST_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class Budget:
    """seconds: of training a model, at most ``steps`` of them; rows: sequences a step."""

    seconds: float = 120.0
    rows: int = 64
    steps: int = 2**31

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ValueError(f"seconds is {self.seconds}; it must be positive")

    def spent(self, seconds: float, steps: int) -> float:
        """The share of it that is gone."""
        return max(seconds / self.seconds, steps / self.steps)


class Outcome(NamedTuple):
    """accuracy: share of asked tokens that are right, on sequences never seen; curve: (seconds, accuracy)."""

    accuracy: float
    steps: int
    num_parameters: int
    curve: tuple[tuple[float, float], ...]


def train(kind: str, task: Task, budget: Budget, *, seed: int = 0) -> Outcome:
    """Everything is drawn from the seed; the clock of training stands still while accuracy is looked at."""
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = make_model(kind, task).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    draw = torch.Generator().manual_seed(seed)
    tests = _on(task.batch(TEST_ROWS, torch.Generator().manual_seed(seed + 2**20)), device)
    seconds, steps = 0.0, 0
    curve: list[tuple[float, float]] = []
    while (gone := budget.spent(seconds, steps)) < 1:
        began = time.monotonic()
        _set_rate(optimizer, steps, gone)
        _step(model, optimizer, _on(task.batch(budget.rows, draw), device))
        seconds, steps = seconds + time.monotonic() - began, steps + 1
        if budget.spent(seconds, steps) >= (len(curve) + 1) / LOOKS:
            curve.append((seconds, accuracy(model, tests)))
    return Outcome(accuracy(model, tests), steps, num_parameters(model), tuple(curve))


@torch.no_grad()
def accuracy(model: Answerer, batch: Batch) -> float:
    """Share of asked tokens whose likeliest answer is right."""
    asked = batch.targets != IGNORED
    return float((model(batch.inputs).argmax(-1) == batch.targets)[asked].float().mean())


def _step(model: Answerer, optimizer: torch.optim.Optimizer, batch: Batch) -> Tensor:
    logits = model(batch.inputs)
    loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.detach()


def _set_rate(optimizer: torch.optim.Optimizer, step: int, progress: float) -> None:
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    for group in optimizer.param_groups:
        group["lr"] = LEARNING_RATE * warm * (0.05 + 0.95 * (0.5 + 0.5 * math.cos(math.pi * progress)))


def _on(batch: Batch, device: str) -> Batch:
    return Batch(batch.inputs.to(device), batch.targets.to(device))
