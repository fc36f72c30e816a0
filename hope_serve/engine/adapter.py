"""One adaptation in progress: a document read segment by segment, each teaching the online levels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hope_serve.api import AdaptMetrics, AdaptOptions, LevelReport
from hope_serve.errors import FailedPrecondition
from hope_serve.model.cms import Delta
from hope_serve.model.cms_state import Cadence, CmsState
from hope_serve.model.hope import Deltas, HopeModel
from hope_serve.model.learn import advance, read_deltas, segment_gradient, step_norm
from hope_serve.model.state import SequenceState


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a memory is made of while it is being changed: every level's tensors, and the tokens behind them."""

    cms: CmsState
    cadence: Cadence

    def read(self, model: HopeModel) -> Deltas:
        """The deltas as generation reads them."""
        return read_deltas(model, self.cms, self.cadence)


class Lesson:
    """Learns a document on top of ``before``, then reads it once more to see what that changed.

    ``settle`` turns what was learned into what will be kept; it is that which is read again.
    Every step is one segment, which ends where the fastest level fires; so the result depends on the document and
    the memory alone, never on who shares the engine.
    """

    def __init__(
        self,
        model: HopeModel,
        tokens: tuple[int, ...],
        before: Learned,
        options: AdaptOptions,
        settle: Callable[[Learned], Learned],
    ) -> None:
        self._model, self._tokens, self._options, self._settle = model, tokens, options, settle
        self.before = self.after = before
        self._passes_left = options.passes
        self._rereading = False
        self._at = 0
        self._state: SequenceState = model.fresh_state(1)
        self._nll_first: list[Tensor] = []
        self._nll_after: list[Tensor] = []
        self._gradient_norms: list[Tensor] = []
        self._norm_left = options.max_update_norm
        self._clipped = False
        self._read: Deltas | None = None

    @property
    def num_left(self) -> int:
        """Tokens still to be computed, all passes and the last reading included."""
        per_pass = len(self._tokens) - 1
        passes = self._passes_left + (0 if self._rereading else 1)
        return max(0, per_pass * passes - self._at)

    @property
    def finished(self) -> bool:
        """Whether ``after`` and ``metrics`` are final."""
        return self._rereading and self._at >= len(self._tokens) - 1

    def next_length(self) -> int:
        """Tokens of the next segment."""
        left = len(self._tokens) - 1 - self._at
        return min(left, self.after.cadence.chunk_sizes[0] if self._rereading else self.after.cadence.room())

    def step(self) -> None:
        """Compute one segment.

        Raises:
            FailedPrecondition: the update is not finite, or cannot be kept; ``before`` stands.
        """
        length = self.next_length()
        device = self._model.embedding.device
        rows = torch.tensor([self._tokens[self._at : self._at + length + 1]], device=device)
        if self._rereading:
            self._reread(rows)
        else:
            self._learn(rows)
        self._at += length
        if self._at == len(self._tokens) - 1 and not self._rereading:
            self._end_pass()

    def metrics(self) -> AdaptMetrics:
        """What the lesson did; call when ``finished``."""
        used = len(self._tokens) - 1
        return AdaptMetrics(
            tokens_given=len(self._tokens),
            tokens_used=used * self._options.passes,
            nll_before=_mean(self._nll_first),
            nll_after=_mean(self._nll_after),
            surprise=math.sqrt(sum(float(n) ** 2 for n in self._gradient_norms)) / max(1, used),
            update_norm=self._update_norm(),
            clipped=self._clipped,
            levels=self._level_reports(),
        )

    def _learn(self, rows: Tensor) -> None:
        cms, cadence = self.after.cms, self.after.cadence
        deltas = tuple(level.delta for level in cms.levels)
        segment = segment_gradient(self._model, rows[:, :-1], rows[:, 1:], self._state, deltas, consumed=self._at)
        gradients = self._chosen(segment.gradients)
        norm = _norm(gradients)
        if not torch.isfinite(norm) or not torch.isfinite(segment.nll).all():
            raise FailedPrecondition(
                "the text's gradient is not finite, so nothing was learned and the memory is unchanged; "
                "send other text or a smaller learning_rate_scale",
                reason="UPDATE_REFUSED",
            )
        self._gradient_norms.append(norm)
        if self._passes_left == self._options.passes:
            self._nll_first.append(segment.nll.detach()[0])
        with torch.no_grad():
            cadence = cadence.after(rows.shape[1] - 1)
            cms = advance(self._model, cms, gradients, cadence.fired())
        self.after = Learned(cms=cms, cadence=cadence)
        self._state = segment.state.with_tensors({n: t.detach() for n, t in segment.state.tensors().items()})

    def _chosen(self, gradients: Deltas) -> Deltas:
        """Gradients of the levels that were asked to learn, scaled."""
        levels, scale = self._options.levels, self._options.learning_rate_scale
        chosen = tuple(
            Delta(*(g * scale if not levels or i in levels else torch.zeros_like(g) for g in pair))
            for i, pair in enumerate(gradients)
        )
        return self._clip(chosen)

    def _clip(self, gradients: Deltas) -> Deltas:
        """Shorten a step that would make all steps together longer than ``max_update_norm``."""
        if not self._options.max_update_norm:
            return gradients
        norm = float(step_norm(self._model, gradients))
        share = min(1.0, self._norm_left / norm) if norm else 1.0
        self._norm_left -= share * norm
        self._clipped |= share < 1
        return tuple(Delta(*(g * share for g in pair)) for pair in gradients)

    def _end_pass(self) -> None:
        self._passes_left -= 1
        self._at = 0
        self._state = self._model.fresh_state(1)
        if self._passes_left == 0:
            self._rereading = True
            with torch.no_grad():
                self.after = self._settle(self.after)
                self._read = self.after.read(self._model)

    @torch.no_grad()
    def _reread(self, rows: Tensor) -> None:
        hidden, self._state = self._model(rows[:, :-1], self._state, consumed=self._at, deltas=self._read)
        logits = self._model.logits(hidden)[0]
        self._nll_after.append(torch.nn.functional.cross_entropy(logits, rows[0, 1:], reduction="none"))

    @torch.no_grad()
    def _update_norm(self) -> float:
        """Norm of the change of what generation reads."""
        pairs = zip(self.after.read(self._model), self.before.read(self._model), strict=True)
        return float(_norm(tuple(Delta(*(a - b for a, b in zip(new, old, strict=True))) for new, old in pairs)))

    @torch.no_grad()
    def _level_reports(self) -> tuple[LevelReport, ...]:
        return level_reports(self._model, self.after)


def level_reports(model: HopeModel, learned: Learned) -> tuple[LevelReport, ...]:
    """Updates and drift of every online level; drift is the delta's norm over that of the weights it moves."""
    reports = []
    indices, deltas = model.config.online_levels, learned.read(model)
    for index, delta, updates in zip(indices, deltas, learned.cadence.updates(), strict=True):
        moved = weights = 0.0
        for layer, block in enumerate(model.blocks):
            level = block.levels[index]
            moved += float(level.drift(Delta(delta.inner[:, layer], delta.outer[:, layer])))
            weights += float(level.inner.square().sum() + level.outer.square().sum())
        reports.append(LevelReport(level=index, updates=updates, drift=math.sqrt(moved / weights)))
    return tuple(reports)


def _norm(deltas: Deltas) -> Tensor:
    return torch.stack([t.float().square().sum() for delta in deltas for t in delta]).sum().sqrt()


def _mean(parts: list[Tensor]) -> float:
    return float(torch.cat(parts).mean()) if parts else 0.0
