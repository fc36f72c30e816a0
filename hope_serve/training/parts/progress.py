"""What a run says of itself: a line every few steps, and the same as JSON lines for the plot."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from torch import Tensor

from hope_serve.model.attention import AttentionShape
from hope_serve.training.parts.buckets import batch_flops, batch_tokens
from hope_serve.training.parts.packing import Bucket

LOSSES = ("answer", "first word", "kl empty", "kl strange", "norm")
"""Nats of the answers and of their first words, of the departure from the base, and the norm of B."""
PEAK_FLOPS = 989e12
"""Of one H100 in bf16, dense."""


class Progress:
    """Sums over the steps since the last line.

    Args:
        folder: where ``log.jsonl`` is appended to.
    """

    def __init__(self, folder: Path, shape: AttentionShape, device: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._shape = folder / "log.jsonl", shape
        self._losses = torch.zeros(len(LOSSES), device=device)
        self._flops, self._tokens, self._steps, self._since = 0.0, 0, 0, time.monotonic()

    def add(self, losses: Tensor, bucket: Bucket) -> None:
        """One batch; ``losses`` already weighted by its share of the step."""
        self._losses += losses
        self._flops += batch_flops(self._shape, bucket)
        self._tokens += batch_tokens(bucket)

    def end_step(self) -> int:
        """Steps since the last line."""
        self._steps += 1
        return self._steps

    def line(self, step: int, seconds: float, extra: dict[str, float]) -> str:
        """The line of these steps; the next one begins afresh."""
        passed = time.monotonic() - self._since
        losses = dict(zip(LOSSES, (self._losses / self._steps).tolist(), strict=True))
        speed = {
            "seconds a step": passed / self._steps,
            "tokens a second": self._tokens / passed,
            "share of peak": self._flops / passed / PEAK_FLOPS,
        }
        record = {"step": float(step), "seconds": seconds} | losses | extra | speed
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        self._losses.zero_()
        self._flops, self._tokens, self._steps, self._since = 0.0, 0, 0, time.monotonic()
        values = "  ".join(f"{name} {value:.4f}" for name, value in (losses | extra).items())
        pace = "  ".join(
            (
                f"{speed['seconds a step']:.2f} s/step",
                f"{speed['tokens a second']:,.0f} tokens/s",
                f"{speed['share of peak']:.1%} of peak",
            )
        )
        return f"step {step}  {seconds:.0f} s  {values}  {pace}"
