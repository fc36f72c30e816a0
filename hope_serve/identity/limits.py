"""How much a tenant, a user or a credential may take at a time."""

from __future__ import annotations

from typing import Annotated

from hope_serve.api import MAX_PRIORITY
from hope_serve.section import Range, Section

Count = Annotated[int, Range(0, 2**40)]
Rate = Annotated[float, Range(0.0, 1e12)]


class Limits(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A limit of 0 is no limit.

    Args:
        slots: sequences at a time: choices of generations, continuations and probes that are weighed, lessons.
        waiting_tokens: tokens of calls that have not answered yet; one call alone may always wait.
        generate_tokens_per_second: tokens read and written, over some time; see ``burst_seconds``.
        learn_tokens_per_second: tokens learned, each pass over them counted.
        max_tokens: of one choice.
        max_priority: of a generation.
    """

    slots: Count = 0
    waiting_tokens: Count = 0
    generate_tokens_per_second: Rate = 0.0
    learn_tokens_per_second: Rate = 0.0
    max_tokens: Count = 0
    max_priority: Annotated[int, Range(-MAX_PRIORITY, MAX_PRIORITY)] = MAX_PRIORITY


NO_LIMITS = Limits()
