"""Decode on a CUDA device: one captured graph a bucket of sequences, from the tokens drawn last to those drawn next."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from hope_kernels.sample.op import sample
from hope_kernels.sample.rows import Sampled
from torch import Tensor

from hope_serve.engine.drawn import Packed
from hope_serve.engine.pools import Pools
from hope_serve.engine.sequence import Sequence
from hope_serve.model.serving.batch import Batch
from hope_serve.model.serving.model import ServedModel

T = TypeVar("T")

FEW = 16
"""Up to so many sequences a step that fills no chunk has a graph of its own, without the kernels that commit."""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A captured step. slots: [B] int32, filled anew before a replay; logits, sampled, packed: what a replay leaves."""

    graph: torch.cuda.CUDAGraph
    slots: Tensor
    logits: Tensor
    sampled: Sampled
    packed: Packed


class DecodeGraphs:
    """Captures every graph when it is made, while nothing else touches the device.

    Args:
        sizes: the buckets; None takes ``buckets``.
    """

    def __init__(self, model: ServedModel, pools: Pools, *, sizes: list[int] | None = None) -> None:
        self._model, self._pools = model, pools
        self._buckets = sizes or buckets(pools.table.num_slots)
        self._memory = torch.cuda.graph_pool_handle()
        # Large ones first: what they have taken serves the small ones.
        self._graphs = {
            (count, fills_chunk): self.captured(count, fills_chunk=fills_chunk)
            for count in reversed(self._buckets)
            for fills_chunk in ((True, False) if count <= FEW else (True,))
        }

    def run(self, sequences: list[Sequence], *, fills_chunk: bool, num_top: int) -> Packed:
        """The next token of each; rows behind them are padding."""
        count = self._buckets[bisect.bisect_left(self._buckets, len(sequences))]
        captured = self._graphs[count, fills_chunk or count > FEW]
        captured.slots.copy_(self._pools.slots_of(sequences, count), non_blocking=True)
        captured.graph.replay()
        return _with_top(captured, num_top) if num_top else captured.packed

    @torch.no_grad()
    def captured(self, count: int, *, fills_chunk: bool, reads_memory: bool = True) -> Graph:
        """A graph of its own, for ``count`` sequences."""
        slots = torch.zeros(count, dtype=torch.int32, device=self._model.device)

        def step() -> tuple[Tensor, Sampled, Packed]:
            logits, sampled = self._step(slots, fills_chunk=fills_chunk, reads_memory=reads_memory)
            return logits, sampled, Packed.of(sampled)

        graph, (logits, sampled, packed) = capture(step, self._memory)
        return Graph(graph=graph, slots=slots, logits=logits, sampled=sampled, packed=packed)

    def _step(self, slots: Tensor, *, fills_chunk: bool, reads_memory: bool) -> tuple[Tensor, Sampled]:
        pools = self._pools
        batch = Batch(
            tokens=pools.last_token[slots],
            slots=slots,
            remembers=pools.remembers,
            fills_chunk=fills_chunk,
            reads_memory=reads_memory,
        )
        logits = self._model.logits(self._model.run(batch, pools.state, pools.deltas))
        sampled = sample(logits, slots, pools.sampling)
        pools.last_token[slots] = sampled.token_B
        return logits, sampled


def capture(compute: Callable[[], T], memory: Any) -> tuple[torch.cuda.CUDAGraph, T]:
    """A graph of what ``compute`` launches, and what it returned, which every replay fills anew.

    It is run before, on the padding that its inputs hold: what is made on first use is made now.

    Args:
        memory: the pool that graphs share.
    """
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            compute()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=memory, capture_error_mode="thread_local"):
        result = compute()
    return graph, result


def buckets(num_slots: int) -> list[int]:
    """Batch sizes with a graph of their own: powers of two, and the number of slots."""
    sizes = [2**i for i in range(num_slots.bit_length()) if 2**i < num_slots]
    return [*sizes, num_slots]


def _with_top(captured: Graph, num_top: int) -> Packed:
    best = torch.log_softmax(captured.logits, -1).topk(num_top)
    return Packed(rows=captured.packed.rows, top=(best.indices, best.values))
