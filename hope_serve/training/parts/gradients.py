"""The gradient of one batch, by the fastest way that the device takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from hope_serve.model.attention import AttentionWeights
from hope_serve.model.attention_learn import LayerFunctions, as_many_tokens
from hope_serve.training.parts.batches import Batch, pieces
from hope_serve.training.parts.graphed import GraphedLearn
from hope_serve.training.parts.loss import Guard, batch_loss
from hope_serve.training.parts.memory import Learner
from hope_serve.training.parts.packing import Bucket
from hope_serve.training.parts.progress import LOSSES


class Gradients:
    """Adds gradients to the part's tensors: by captured graphs, else by fused passes, else by plain ones.

    A way that fails is named and left for good. A batch that the device cannot hold is taken in halves from then on.

    Args:
        learner: the base with the part as it stands, by the given functions.
        base: the untouched weights.
        general: rows as ``batch_loss`` takes them.
        share: what every batch counts for in a step.
        graphed: whether to capture.
        learned: the tensors that gradients are taken of.
    """

    def __init__(
        self,
        learner: Callable[[LayerFunctions], Learner],
        base: AttentionWeights,
        general: Tensor | None,
        guard: Guard,
        *,
        share: float,
        functions: LayerFunctions,
        graphed: bool,
        learned: Iterable[Tensor],
    ) -> None:
        self._learner, self._base, self._general, self._guard = learner, base, general, guard
        self._share = share
        self._functions = functions
        self._pieces: dict[str, int] = {}
        self._graphed = GraphedLearn(self._whole, learned) if graphed else None

    def add(self, batch: Batch, bucket: Bucket) -> Tensor:
        """Add the batch's gradient; its losses, in the order of ``LOSSES``."""
        if self._graphed is not None:
            try:
                return self._graphed(batch, bucket)
            except RuntimeError as error:  # out of memory too
                self._leave("captured graphs", error)
                self._graphed = None
        count = self._pieces.setdefault(bucket.name, 1)
        try:
            return self._in_pieces(batch, bucket, count)
        except torch.OutOfMemoryError:
            if count >= len(batch.taught):
                raise
            self._pieces[bucket.name] = count * 2
            print(f"bucket {bucket.name} does not fit; from here on in {count * 2} pieces", flush=True)
        except RuntimeError as error:
            if self._functions == LayerFunctions():
                raise
            self._leave("fused operations", error)
            self._functions = LayerFunctions()
        torch.cuda.empty_cache()
        return self.add(batch, bucket)

    def _whole(self, batch: Batch, bucket: Bucket) -> Tensor:
        """Without a look at any value on the host."""
        return self._part(batch, bucket, self._functions._replace(counted=as_many_tokens), self._share)

    def _in_pieces(self, batch: Batch, bucket: Bucket, count: int) -> Tensor:
        total = torch.zeros(len(LOSSES), device=batch.taught.device)
        for piece in pieces(batch, count):
            share = len(piece.taught) / len(batch.taught)
            total += self._part(piece, bucket, self._functions, share * self._share) * share
        return total

    def _part(self, batch: Batch, bucket: Bucket, functions: LayerFunctions, share: float) -> Tensor:
        loss, losses = batch_loss(self._learner(functions), self._base, batch, bucket, self._general, self._guard)
        (loss * share).backward()  # type: ignore[no-untyped-call]
        return losses

    @staticmethod
    def _leave(way: str, error: RuntimeError) -> None:
        print(f"{way} failed ({str(error)[:500]}); going on without", flush=True)
