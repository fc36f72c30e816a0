"""One optimisation step; on CUDA its forward and backward are one captured graph per shape."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hope_serve.model.hope import HopeModel
from hope_serve.training.config import LossConfig
from hope_serve.training.meta import episode_loss, text_loss
from hope_serve.training.stream import Batch, unpack

PARTS = ("answer", "unknown", "blank", "taught", "text")


@dataclass(frozen=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    parts: Tensor


class GradientStep:
    """Puts the gradient of one batch's outer loss into ``.grad`` of every parameter."""

    def __init__(
        self, model: HopeModel, weights: LossConfig, *, capture: bool, read_dtype: torch.dtype = torch.float32
    ) -> None:
        self._model, self._weights, self._capture = model, weights, capture
        self._device, self._read_dtype = model.embedding.device, read_dtype
        self._unknown = torch.zeros((), device=self._device)
        self._captured: dict[str, _Captured] = {}
        self._pool: Any = None
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def __call__(self, batch: Batch, *, unknown: float) -> Tensor:
        """The parts of the loss, in the order of ``PARTS``; NaN where the batch has none."""
        self._unknown.fill_(unknown)
        tensors = [batch.text, batch.weights, *(batch.episodes.tensors() if batch.episodes else [])]
        if not self._capture:
            return self._run(batch, [t.to(self._device) for t in tensors])
        key = batch.plan.name if batch.plan else f"text{len(batch.text)}"
        if key not in self._captured:
            self._captured[key] = self._record(batch, [t.to(self._device) for t in tensors])
        captured = self._captured[key]
        for static, tensor in zip(captured.inputs, tensors, strict=True):
            static.copy_(tensor, non_blocking=True)
        captured.graph.replay()
        return captured.parts

    def _run(self, batch: Batch, tensors: list[Tensor]) -> Tensor:
        nan = torch.full((), float("nan"), device=self._device)
        for parameter in self._model.parameters():
            parameter.grad.zero_()  # type: ignore[union-attr]
        with self._reading():
            text = text_loss(self._model, tensors[0], tensors[1])
        # One backward after the other: what both keep for theirs is not there at a time.
        (text if batch.plan is None else self._weights.text * text).backward()  # type: ignore[no-untyped-call]
        parts = torch.stack([nan] * (len(PARTS) - 1))
        if batch.plan is not None:
            episodes = unpack(batch.plan, tensors[2:])
            loss, parts = episode_loss(
                self._model, batch.plan, episodes, self._weights, self._unknown, reading=self._reading
            )
            loss.backward()  # type: ignore[no-untyped-call]
        return torch.cat([parts, text.detach()[None]])

    def _reading(self) -> AbstractContextManager[None]:
        """Where products may be in fewer bits; weights are cast anew every time, as a captured graph needs."""
        if self._read_dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self._device.type, self._read_dtype, cache_enabled=False)

    def _record(self, batch: Batch, inputs: list[Tensor]) -> _Captured:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                self._run(batch, inputs)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            parts = self._run(batch, inputs)
        self._pool = graph.pool()
        return _Captured(graph, inputs, parts)
