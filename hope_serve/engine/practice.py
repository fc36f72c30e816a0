"""Work in nobody's name, before anybody waits: on a card whatever is first of its kind is compiled for seconds.

Kernels are compiled for one row or sequence, for numbers that 16 divides, and for others.
"""

from __future__ import annotations

import torch

from hope_serve.api import AdaptOptions
from hope_serve.engine.lesson import Lesson
from hope_serve.engine.teaching import Teaching

BOUND = 1.0
"""An update norm that is allowed, so that what keeps to it is computed, too."""


def practise_lessons(teaching: Teaching) -> None:
    """Take lessons of every kind from beginning to end; nothing of them stays.

    A whole segment, a short one, the update, and the rereading, of every number of lessons that has a graph.
    """
    teaching.capture()
    whole = teaching.cadence.room()
    for count in reversed(teaching.counts):
        for num_targets in (whole, whole + 1):
            _practise(teaching, [_made_up(teaching, num_targets) for _ in range(count)])


def _made_up(teaching: Teaching, num_targets: int) -> Lesson:
    return Lesson(
        tokens=(0,) * (num_targets + 1),
        before=torch.zeros(teaching.layout.num_bytes, dtype=torch.uint8),
        cadence=teaching.cadence,
        options=AdaptOptions(max_update_norm=BOUND),
    )


def _practise(teaching: Teaching, lessons: list[Lesson]) -> None:
    for lesson in lessons:
        teaching.begin(lesson)
    under_way = lessons
    while under_way:
        refused = {lesson for lesson, _ in teaching.step(under_way)}
        under_way = [lesson for lesson in under_way if not lesson.finished and lesson not in refused]
    for lesson in reversed(lessons):
        slot = lesson.slot
        teaching.end(lesson)
        teaching.erase(slot)
