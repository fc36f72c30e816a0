"""What a lesson did to a memory, in figures."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hope_serve.api import AdaptMetrics, LevelReport
from hope_serve.engine.lesson import Lesson
from hope_serve.engine.memory import Learned
from hope_serve.model.cms import Delta
from hope_serve.model.hope import Deltas
from hope_serve.model.learn import read_deltas


@torch.no_grad()
def lesson_metrics(lesson: Lesson, before: Learned, after: Learned) -> AdaptMetrics:
    """What a finished lesson did."""
    used = lesson.num_targets
    now = _reading(after)
    return AdaptMetrics(
        tokens_given=len(lesson.tokens),
        tokens_used=used * lesson.options.passes,
        nll_before=sum(lesson.nll_first) / used,
        nll_after=sum(lesson.nll_after) / used,
        surprise=lesson.surprise,
        update_norm=_norm_between(_reading(before), now),
        clipped=lesson.clipped,
        levels=_level_reports(after, now),
    )


@torch.no_grad()
def update_norm(before: Learned, after: Learned) -> float:
    """Norm of the change between two memories."""
    return _norm_between(_reading(before), _reading(after))


@torch.no_grad()
def level_reports(learned: Learned) -> tuple[LevelReport, ...]:
    """Updates and drift of every online level; drift is the delta's norm over that of the weights it moves."""
    return _level_reports(learned, _reading(learned))


def _level_reports(learned: Learned, deltas: Deltas) -> tuple[LevelReport, ...]:
    form = learned.form
    reports = []
    for index, delta, updates in zip(form.config.online_levels, deltas, learned.cadence.updates(), strict=True):
        reports.append(LevelReport(level=index, updates=updates, drift=form.kind.drift(index, delta)))
    return tuple(reports)


def _norm_between(old: Deltas, new: Deltas) -> float:
    change = (Delta(*(a - b for a, b in zip(*pairs, strict=True))) for pairs in zip(new, old, strict=True))
    return math.sqrt(sum(_square(pair) for pair in change))


def _reading(learned: Learned) -> Deltas:
    return read_deltas(learned.form.rules, learned.cms.map(Tensor.float), learned.cadence)


def _square(pair: Delta) -> float:
    return sum(float(side.square().sum()) for side in pair)
