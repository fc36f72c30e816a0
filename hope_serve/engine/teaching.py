"""Lessons on the device: the segments of several users in one pass, forwards and backwards, by slot."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from itertools import accumulate

import torch
from torch import Tensor

from hope_serve.engine.bounding import bound_move
from hope_serve.engine.lesson import Lesson
from hope_serve.engine.ownership import Ownership
from hope_serve.engine.segments import Rows, SegmentGradients, Segments
from hope_serve.engine.updating import update_level
from hope_serve.errors import FailedPrecondition, HopeError
from hope_serve.model.cadence import Cadence
from hope_serve.model.cms import Delta
from hope_serve.model.cms_state import CmsState, cadence_of, cms_shapes
from hope_serve.model.hope import Deltas
from hope_serve.model.learn import read_deltas
from hope_serve.model.serving.batch import Batch
from hope_serve.model.serving.model import ServedModel
from hope_serve.model.serving.slab import Part, Slab, SlabLayout

Refused = list[tuple[Lesson, HopeError]]


class Teaching:
    """A pool of ``max_lessons`` lessons: what a sequence carries, all that its memory is made of, and what that reads.

    Only the thread that made it touches it.

    The numbers of a lesson depend on nobody who learns beside it but for the order in which products are summed; with
    ``alone`` not even for that.
    """

    def __init__(self, model: ServedModel, max_lessons: int, *, alone: bool, poison: bool = False) -> None:
        self._owner = Ownership()
        self._model, self._alone, self._poison = model, alone, poison
        device = str(model.device)
        self.layout = SlabLayout({n: Part(s, torch.float32) for n, s in cms_shapes(model.config).items()})
        self._learned = Slab(self.layout, max_lessons, device=device)
        self._cms = CmsState.of(model.config, self._learned.views)
        self._state = model.state_pool(max_lessons)
        self._reads = Slab(model.delta_layout(model.precision.deltas), max_lessons, device=device)
        reads, at_once = model.bind_deltas(self._reads.views), 1 if alone else max_lessons
        self._segments = Segments(model, self._state, self._cms, reads, max_lessons=at_once)
        self._kept: torch.dtype = getattr(torch, model.config.memory_dtype)
        self._free = list(range(max_lessons, 0, -1))

    @property
    def counts(self) -> list[int]:
        """Of lessons that are computed together, those that have arithmetic of their own, few to many."""
        return self._segments.counts

    @property
    def cadence(self) -> Cadence:
        """Where the chunks of a memory that has learned nothing stand."""
        return cadence_of(self._model.config)

    def capture(self) -> None:
        """See ``Segments.capture``."""
        self._owner.check()
        self._segments.capture()

    def begin(self, lesson: Lesson) -> None:
        """Give a lesson its slot."""
        self._owner.check()
        lesson.slot = self._free.pop()
        self._learned.load(lesson.slot, lesson.before)
        self._state.clear(lesson.slot)

    def end(self, lesson: Lesson) -> None:
        """Take the slot back."""
        self._owner.check()
        if lesson.slot:
            if self._poison:
                for slab in (self._learned, self._state, self._reads):
                    slab.poison(lesson.slot)
            self._free.append(lesson.slot)
            lesson.slot = 0

    def erase(self, slot: int) -> None:
        """Make a slot as if nobody had ever had it."""
        self._owner.check()
        for slab in (self._learned, self._state, self._reads):
            slab.clear(slot)

    def step(self, lessons: Seq[Lesson]) -> Refused:
        """Compute the next segment of each.

        Returns:
            Lessons whose update is not finite or cannot be kept, and why; their memories stand as before.
        """
        self._owner.check()
        refused: Refused = []
        groups = [[lesson] for lesson in lessons] if self._alone else [list(lessons)]
        for group in groups:
            if learning := [lesson for lesson in group if not lesson.rereading]:
                rows = self._rows(learning)
                refused += self._move(learning, rows, self._segments.gradients(rows))
            if rereading := [lesson for lesson in group if lesson.rereading and lesson not in learning]:
                self._reread(rereading, self._rows(rereading))
        return refused

    def _rows(self, lessons: Seq[Lesson]) -> Rows:
        lengths = [lesson.next_length() for lesson in lessons]
        segments = [lesson.segment(length) for lesson, length in zip(lessons, lengths, strict=True)]
        tokens, targets = ([token for segment in segments for token in segment[i]] for i in (0, 1))
        batch = Batch(
            tokens=self._on_device(tokens, torch.int64),
            slots=self._on_device([lesson.slot for lesson in lessons], torch.int32),
            starts=self._on_device([0, *accumulate(lengths)], torch.int32),
            memories=self._on_device(list(range(1, len(lessons) + 1)), torch.int32),
        )
        return Rows(batch=batch, targets=self._on_device(targets, torch.int64), lengths=lengths)

    @torch.no_grad()
    def _move(self, lessons: Seq[Lesson], rows: Rows, found: SegmentGradients) -> Refused:
        """Let the segments' gradients move the memories; refuse those that are not finite."""
        gradients = found.gradients
        scales = [self._scale(lessons, level) for level in range(len(gradients))]
        norms, steps, losses = torch.stack([*self._norms(gradients, scales), self._sums(rows, found.nll)]).tolist()
        refused: Refused = []
        shares = []
        for lesson, norm, step, loss in zip(lessons, norms, steps, losses, strict=True):
            good = all(map(_is_finite, (norm, step, loss)))
            shares.append(lesson.allowed_share(step) if good else 0.0)
            if not good:
                refused.append((lesson, _not_finite()))
        fired = [lesson.cadence_after(n).fired() for lesson, n in zip(lessons, rows.lengths, strict=True)]
        out = {lesson for lesson, _ in refused}
        slots = self._on_device([0 if lesson in out else lesson.slot for lesson in lessons], torch.int32)
        allowed = self._on_device(shares, torch.float32)
        self._update(slots, gradients, [scale * allowed for scale in scales], fired)
        for i, (lesson, length) in enumerate(zip(lessons, rows.lengths, strict=True)):
            if lesson in out:
                continue
            if lesson.in_first_pass:
                lesson.nll_first.append(losses[i])
            lesson.learned(length, gradient_norm=norms[i], share=shares[i], step_norm=steps[i])
            if lesson.at == lesson.num_targets:
                refused += self._end_pass(lesson)
        return refused

    def _scale(self, lessons: Seq[Lesson], level: int) -> Tensor:
        """[B], the factor on each lesson's gradient of a level."""
        factors = [
            lesson.options.learning_rate_scale if not lesson.options.levels or level in lesson.options.levels else 0.0
            for lesson in lessons
        ]
        return self._on_device(factors, torch.float32)

    def _norms(self, gradients: list[Delta], scales: list[Tensor]) -> tuple[Tensor, Tensor]:
        """[B] each: the gradients' norm, and that of the step which they alone would make."""
        squares, steps = [], []
        for pair, scale, rule in zip(gradients, scales, self._model.rules, strict=True):
            for gradient, rate in zip(pair, rule.rates, strict=True):
                scaled = gradient.float() * scale[:, None, None, None]
                squares.append(scaled.square().flatten(1).sum(1))
                steps.append((scaled * rate.float()).square().flatten(1).sum(1))
        return torch.stack(squares).sum(0).sqrt(), torch.stack(steps).sum(0).sqrt()

    def _sums(self, rows: Rows, nll: Tensor) -> Tensor:
        """[B], each segment's summed loss."""
        owner = torch.repeat_interleave(
            torch.arange(len(rows.lengths), device=nll.device), self._on_device(rows.lengths, torch.int64)
        )
        return torch.zeros(len(rows.lengths), device=nll.device).index_add_(0, owner, nll)

    def _update(
        self, slots: Tensor, gradients: list[Delta], scales: list[Tensor], fired: list[tuple[bool, ...]]
    ) -> None:
        """Add the gradients to the open chunks, and fire the levels whose chunk ends."""
        for level, (rule, gradient, scale) in enumerate(zip(self._model.rules, gradients, scales, strict=True)):
            due = self._on_device([row[level] for row in fired], torch.bool)
            update_level(rule, self._cms.levels[level], gradient, slots, due, scale)

    def _end_pass(self, lesson: Lesson) -> Refused:
        lesson.end_pass()
        self._state.clear(lesson.slot)
        return self._settle(lesson) if lesson.rereading else []

    def _settle(self, lesson: Lesson) -> Refused:
        """Round what was learned to what will be kept, and make ready what it reads."""
        slot = lesson.slot
        if limit := lesson.options.max_update_norm:
            before = self._before(lesson)
            one = self._cms.map(lambda t: t[slot : slot + 1])
            lesson.clipped |= bound_move(self._model.rules, one, before, lesson.cadence, limit)
        views = self._learned.views
        for tensor in views.values():
            tensor[slot] = tensor[slot].to(self._kept).float()
        finite = torch.stack([torch.isfinite(tensor[slot]).all() for tensor in views.values()]).tolist()
        if too_large := [name for name, good in zip(views, finite, strict=True) if not good]:
            return [(lesson, _too_large(too_large[0], self._model.config.memory_dtype))]
        one = self._cms.map(lambda t: t[slot : slot + 1])
        for i, pair in enumerate(read_deltas(self._model.rules, one, lesson.cadence)):
            for side, tensor in zip(Delta._fields, pair, strict=True):
                if tensor.shape[-2]:
                    self._reads.views[f"{i}.delta.{side}"][slot] = tensor[0].to(self._model.precision.deltas)
        lesson.after = self._learned.save(slot)
        return []

    def _before(self, lesson: Lesson) -> Deltas:
        """What the memory read with when the lesson began; the slot holds it for as long as that takes."""
        slot = lesson.slot
        after = self._learned.save(slot)
        self._learned.load(slot, lesson.before)
        read = read_deltas(self._model.rules, self._cms.map(lambda t: t[slot : slot + 1].clone()), lesson.started_at)
        self._learned.load(slot, after)
        return read

    @torch.no_grad()
    def _reread(self, lessons: Seq[Lesson], rows: Rows) -> None:
        nll = self._segments.losses(rows)
        for lesson, length, loss in zip(lessons, rows.lengths, self._sums(rows, nll).tolist(), strict=True):
            lesson.nll_after.append(loss)
            lesson.at += length

    def _on_device(self, values: list[int] | list[float] | list[bool], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype).to(self._model.device)


def _is_finite(value: float) -> bool:
    return value - value == 0.0


def _not_finite() -> FailedPrecondition:
    return FailedPrecondition(
        "the text's gradient is not finite, so nothing was learned and the memory is unchanged; "
        "send other text or a smaller learning_rate_scale",
        reason="UPDATE_REFUSED",
    )


def _too_large(name: str, dtype: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"the update makes {name} larger than {dtype} can hold or not a number; "
        "the memory is unchanged; send other text or a smaller learning_rate_scale",
        reason="UPDATE_REFUSED",
    )
