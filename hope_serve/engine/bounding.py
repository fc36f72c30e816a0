"""How far a lesson may move what a memory reads with, whatever the levels' optimizers make of its gradients."""

from __future__ import annotations

import math

from hope_serve.model.cadence import Cadence
from hope_serve.model.cms_state import CmsState
from hope_serve.model.hope import Deltas
from hope_serve.model.learn import Rules, read_deltas


def bound_move(rules: Rules, cms: CmsState, before: Deltas, cadence: Cadence, limit: float) -> bool:
    """Bring one memory back, in place, onto the straight way from ``before``, no further than ``limit`` from it.

    Steps are bounded as they are taken, but a rule need not follow its gradient: momentum of earlier lessons, a step of
    a size of its own and decay move a memory as well. Every rule reads ``decay delta + something`` while a chunk is
    open, and ``delta`` when none is; so moving the delta by the difference over the decay moves the reading by it.

    Args:
        cms: [1, L, rows, columns] each; as views they are changed where they lie.
        before: what the memory read with when the lesson began.
        cadence: where the memory stands now.

    Returns:
        Whether it had gone further.
    """
    now = read_deltas(rules, cms, cadence)
    ways = [tuple(n - b for n, b in zip(*pair, strict=True)) for pair in zip(now, before, strict=True)]
    moved = math.sqrt(sum(float(side.square().sum()) for way in ways for side in way))
    if not moved > limit:
        return False
    too_much = 1 - limit / moved
    for rule, level, way, is_open in zip(rules, cms.levels, ways, cadence.open(), strict=True):
        for delta, side, decay in zip(level.delta, way, rule.decays, strict=True):
            delta.sub_(too_much * side / (decay.float() if is_open else 1.0))
    return True
