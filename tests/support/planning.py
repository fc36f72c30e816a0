"""Sequences that no model computes, and a scheduler that plans for them."""

from __future__ import annotations

from hope_serve.api import AdaptOptions, SamplingParams
from hope_serve.api.engine import Purpose
from hope_serve.engine.lesson import Lesson
from hope_serve.engine.scheduler import Scheduler
from hope_serve.engine.sequence import Sequence
from hope_serve.model.cadence import Cadence


def sequence(num_tokens=5, *, max_tokens=4, **options):
    sampling = SamplingParams(max_tokens=max_tokens)
    return Sequence(
        purpose=Purpose.GENERATE, tokens=list(range(num_tokens)), listener=None, sampling=sampling, **options
    )


def lesson(num_tokens=40, *, passes=1, learned=0):
    cadence = Cadence(chunk_sizes=(16, 32), tokens=learned)
    return Lesson(tokens=tuple(range(num_tokens)), before=None, cadence=cadence, options=AdaptOptions(passes=passes))


def learning(*, owner=None, **options):
    return Sequence(purpose=Purpose.LEARN, tokens=[], listener=None, lesson=lesson(**options), owner=owner)


def scheduler(**options):
    return Scheduler(**({"max_step_tokens": 16, "max_queue_tokens": 400, "max_lessons": 2} | options))


def running(planner, *sequences, num_slots=8):
    for one in sequences:
        planner.admit(one)
        planner.add(one)
    planner.start(num_slots)
    return planner
