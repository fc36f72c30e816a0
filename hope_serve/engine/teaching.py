"""Lessons on the device: the segments of several users in one pass, forwards and backwards, by slot."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from itertools import accumulate

import torch

from hope_serve.api import AdaptOptions
from hope_serve.engine.bounding import bound_move
from hope_serve.engine.graphs import buckets
from hope_serve.engine.lesson import Lesson
from hope_serve.engine.lesson_graphs import LessonGraphs
from hope_serve.engine.ownership import Ownership
from hope_serve.engine.segments import LearningPools, Moves, Passes, Rows, Segments
from hope_serve.errors import FailedPrecondition, HopeError
from hope_serve.model.cadence import Cadence
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
        pools = LearningPools(
            state=self._state,
            learned=self._learned,
            cms=self._cms,
            reads=self._reads,
            kept=getattr(torch, model.config.memory_dtype),
        )
        self._segments = Segments(model, pools)
        self._passes: Passes = self._segments
        self._at_once = 1 if alone else max_lessons
        self._free = list(range(max_lessons, 0, -1))

    @property
    def counts(self) -> list[int]:
        """Of lessons that are computed together, those that have arithmetic of their own, few to many."""
        return buckets(self._at_once)

    @property
    def cadence(self) -> Cadence:
        """Where the chunks of a memory that has learned nothing stand."""
        return cadence_of(self._model.config)

    def capture(self) -> None:
        """Let graphs do it, where there are any."""
        self._owner.check()
        whole = min(self._model.config.levels[i].chunk_size for i in self._model.config.online_levels)
        self._passes = LessonGraphs.try_to(self._segments, max_lessons=self._at_once, whole=whole) or self._segments

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
                refused += self._learn(learning)
            if rereading := [lesson for lesson in group if lesson.rereading and lesson not in learning]:
                self._reread(rereading)
        return refused

    def _rows(self, lessons: Seq[Lesson]) -> Rows:
        lengths = [lesson.next_length() for lesson in lessons]
        segments = [lesson.segment(length) for lesson, length in zip(lessons, lengths, strict=True)]
        tokens, targets = ([token for segment in segments for token in segment[i]] for i in (0, 1))
        levels = range(len(self._model.rules))
        return Rows(
            batch=Batch(
                tokens=torch.tensor(tokens),
                slots=torch.tensor([lesson.slot for lesson in lessons], dtype=torch.int32),
                starts=torch.tensor([0, *accumulate(lengths)], dtype=torch.int32),
                memories=torch.arange(1, len(lessons) + 1, dtype=torch.int32),
            ),
            targets=torch.tensor(targets),
            scales=torch.tensor([[_scale(lesson.options, level) for lesson in lessons] for level in levels]),
            lengths=lengths,
        )

    def _learn(self, lessons: Seq[Lesson]) -> Refused:
        """Let the next segments' gradients move the memories; refuse those that are not finite."""
        rows = self._rows(lessons)
        found = self._passes.learn(rows)
        norms, steps, losses = found.figures.tolist()
        refused: Refused = []
        shares = []
        # Behind the lessons' figures may stand those of padding.
        for lesson, norm, step, loss in zip(lessons, norms, steps, losses, strict=False):
            good = all(map(_is_finite, (norm, step, loss)))
            shares.append(lesson.allowed_share(step) if good else 0.0)
            if not good:
                refused.append((lesson, _not_finite()))
        out = {lesson for lesson, _ in refused}
        fired = [lesson.cadence_after(n).fired() for lesson, n in zip(lessons, rows.lengths, strict=True)]
        moves = Moves(
            slots=torch.tensor([0 if lesson in out else lesson.slot for lesson in lessons], dtype=torch.int32),
            shares=torch.tensor(shares),
            due=torch.tensor(fired).T.contiguous(),
        )
        self._passes.move(found, moves)
        ended = []
        for i, (lesson, length) in enumerate(zip(lessons, rows.lengths, strict=True)):
            if lesson in out:
                continue
            if lesson.in_first_pass:
                lesson.nll_first.append(losses[i])
            lesson.learned(length, gradient_norm=norms[i], share=shares[i], step_norm=steps[i])
            if lesson.at == lesson.num_targets:
                lesson.end_pass()
                self._state.clear(lesson.slot)
                ended += [lesson] if lesson.rereading else []
        return refused + (self._settle(ended) if ended else [])

    @torch.no_grad()
    def _settle(self, lessons: Seq[Lesson]) -> Refused:
        """Make what was learned what will be kept; refuse what cannot be."""
        for lesson in lessons:
            self._bound(lesson)
        slots = torch.tensor([lesson.slot for lesson in lessons])
        is_open = torch.tensor([lesson.cadence.open() for lesson in lessons]).T.contiguous()
        finite = self._passes.settle(slots, is_open).tolist()
        refused: Refused = []
        for i, lesson in enumerate(lessons):
            if too_large := [name for name, good in zip(self.layout.parts, finite, strict=True) if not good[i]]:
                refused.append((lesson, _too_large(too_large[0], self._model.config.memory_dtype)))
            else:
                lesson.after = self._learned.save(lesson.slot)
        return refused

    def _bound(self, lesson: Lesson) -> None:
        """Keep a lesson within the limit of its way."""
        slot = lesson.slot
        if limit := lesson.options.max_update_norm:
            before = self._before(lesson)
            one = self._cms.map(lambda t: t[slot : slot + 1])
            lesson.clipped |= bound_move(self._model.rules, one, before, lesson.cadence, limit)

    def _before(self, lesson: Lesson) -> Deltas:
        """What the memory read with when the lesson began; the slot holds it for as long as that takes."""
        slot = lesson.slot
        after = self._learned.save(slot)
        self._learned.load(slot, lesson.before)
        read = read_deltas(self._model.rules, self._cms.map(lambda t: t[slot : slot + 1].clone()), lesson.started_at)
        self._learned.load(slot, after)
        return read

    def _reread(self, lessons: Seq[Lesson]) -> None:
        rows = self._rows(lessons)
        losses = self._passes.losses(rows).tolist()
        for lesson, length, loss in zip(lessons, rows.lengths, losses, strict=True):
            lesson.nll_after.append(loss)
            lesson.at += length


def _scale(options: AdaptOptions, level: int) -> float:
    """The factor on a lesson's gradient of a level."""
    return options.learning_rate_scale if not options.levels or level in options.levels else 0.0


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
