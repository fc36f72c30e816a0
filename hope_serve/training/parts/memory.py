"""What the server does with a lesson, differentiable: B after every chunk of told text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hope_serve.model.attention import AttentionShape, AttentionWeights, Past
from hope_serve.model.attention_learn import (
    LayerFunctions,
    MemoryRule,
    Told,
    memory_gradient,
    place,
    read_hidden,
)
from hope_serve.training.parts.packing import Bucket


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A base with its start merged, and the part's tensors: all that teaching and reading take."""

    shape: AttentionShape
    weights: AttentionWeights
    part: Mapping[str, Tensor]
    functions: LayerFunctions

    @property
    def rule(self) -> MemoryRule:
        """See ``MemoryRule``."""
        part = self.part
        return MemoryRule(part["projection"], part["token_weight.weight"], part["token_weight.bias"])

    def teach(self, told: Told, taught: Tensor, bucket: Bucket) -> Tensor:
        """B [U, L, d, r] after the told chunks [U, chunks, C], from nothing.

        The outer gradient flows through the first ``learned_chunks``; later ones move B by constants, and let it decay.

        Args:
            taught: [U, chunks], whether a chunk holds anything of this user; one that does not leaves B alone.
        """
        rates = self.part["log_rate"].exp()[:, None, None]
        decays = torch.sigmoid(self.part["decay_logit"])[:, None, None]
        memory: Tensor | None = None
        pasts: list[tuple[tuple[Past, ...], Tensor]] = []
        for index in range(bucket.chunks):
            rows = Told(*(t[:, index] for t in told))
            gradient, past = self._gradient(rows, memory, pasts, learned=index < bucket.learned_chunks)
            pasts = [*pasts, (past, rows.segments)][-bucket.past_chunks :] if bucket.past_chunks else []
            after = -rates * gradient if memory is None else decays * memory - rates * gradient
            before = torch.zeros_like(after) if memory is None else memory
            memory = torch.where(taught[:, index, None, None, None], after, before)
        assert memory is not None
        return memory

    def read(self, rows: Told, memory: Tensor | None) -> Tensor:
        """Final hidden vectors [N, T, d] of packed rows under B [N, L, d, r]."""
        where = place(self.shape, rows.positions, rows.segments, self.weights.embedding.dtype)
        return read_hidden(
            self.shape,
            self.weights,
            rows.inputs,
            where,
            projection=self.part["projection"],
            memory=None if memory is None else memory.to(self.weights.embedding.dtype),
            functions=self.functions,
        )

    def _gradient(
        self, rows: Told, memory: Tensor | None, pasts: list[tuple[tuple[Past, ...], Tensor]], *, learned: bool
    ) -> tuple[Tensor, tuple[Past, ...]]:
        past, segments = _joined(pasts)
        where = place(self.shape, rows.positions, rows.segments, self.weights.embedding.dtype, segments)
        with torch.set_grad_enabled(learned and torch.is_grad_enabled()):
            lesson = memory_gradient(
                self.shape,
                self.weights,
                rows,
                where,
                rule=self.rule,
                memory=None if memory is None else memory.to(self.weights.embedding.dtype),
                past=past,
                functions=self.functions,
            )
        return lesson.gradient, lesson.past


def plain_rows(tokens: Tensor) -> Told:
    """Rows [N, T] of running text, each one segment; every target but the last is the next token."""
    count = tokens.shape[1]
    positions = torch.arange(count, device=tokens.device).expand(tokens.shape)
    mask = torch.ones(tokens.shape, device=tokens.device)
    mask[:, -1] = 0
    return Told(tokens, tokens.roll(-1, 1), mask, positions, torch.ones_like(tokens))


def _joined(pasts: list[tuple[tuple[Past, ...], Tensor]]) -> tuple[tuple[Past, ...] | None, Tensor | None]:
    """Earlier chunks' keys and values side by side, and their segments."""
    if not pasts:
        return None, None
    if len(pasts) == 1:
        return pasts[0]
    layers = zip(*(past for past, _ in pasts), strict=True)
    joined = tuple(Past(torch.cat([p.key for p in one], 2), torch.cat([p.value for p in one], 2)) for one in layers)
    return joined, torch.cat([segments for _, segments in pasts], 1)
