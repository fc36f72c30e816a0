"""Batches as captured CUDA graphs: one launch a batch, where a pass by hand takes thousands."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from hope_serve.training.parts.batches import Batch, mapped, tensors
from hope_serve.training.parts.packing import Bucket

WARM_UPS = 2
"""Passes before the capture: what is compiled or looked up on first use happens in these."""

Learn = Callable[[Batch, Bucket], Tensor]


class _Captured(NamedTuple):
    graph: torch.cuda.CUDAGraph
    batch: Batch
    losses: Tensor


class GraphedLearn:
    """``learn`` of a bucket's first batch is captured; later batches of that bucket are copied in and replayed.

    Gradients are added to what ``learned`` hold, in place: they must never be set to None. All graphs share one pool of
    memory, as no two run at a time.

    Args:
        learn: loss and backward pass of one batch without a look at any value on the host; returns the losses.
        learned: the tensors that gradients are taken of.
    """

    def __init__(self, learn: Learn, learned: Iterable[Tensor]) -> None:
        self._learn = learn
        self._learned = tuple(learned)
        self._captured: dict[str, _Captured] = {}
        self._pool = torch.cuda.graph_pool_handle()
        for tensor in self._learned:
            tensor.grad = torch.zeros_like(tensor)

    def __call__(self, batch: Batch, bucket: Bucket) -> Tensor:
        """Add the batch's gradient and return its losses."""
        if bucket.name not in self._captured:
            self._captured[bucket.name] = self._capture(batch, bucket)
        captured = self._captured[bucket.name]
        for held, new in zip(tensors(captured.batch), tensors(batch), strict=True):
            held.copy_(new)
        captured.graph.replay()
        return captured.losses.clone()

    def _capture(self, batch: Batch, bucket: Bucket) -> _Captured:
        held = mapped(batch, torch.clone)
        before = [_gradient(tensor).clone() for tensor in self._learned]
        try:
            self._warm_up(held, bucket)
            graph = torch.cuda.CUDAGraph()
            # "thread_local": the loader's own thread goes on pinning memory meanwhile
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                losses = self._learn(held, bucket)
        finally:
            for tensor, gradient in zip(self._learned, before, strict=True):
                _gradient(tensor).copy_(gradient)
        return _Captured(graph, held, losses)

    def _warm_up(self, batch: Batch, bucket: Bucket) -> None:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._learn(batch, bucket)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def _gradient(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad
