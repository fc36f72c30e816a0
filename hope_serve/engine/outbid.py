"""Who gives slots back when a tenant that holds less than its part of them waits for some. No model code."""

from __future__ import annotations

from collections import Counter

from hope_serve.engine.sequence import Sequence


def giving_way(running: list[Sequence], first: Sequence, num_free: int) -> list[Sequence]:
    """Sequences that go back to where others wait, so that ``first`` can start; none when it has to wait.

    Slots are parted evenly among the tenants that hold some and the one that waits. Only a tenant that has more than
    its part gives some back, and only to one that stays within its own; those sequences go that have least to lose.

    Args:
        num_free: slots that nobody holds.
    """
    held = Counter[str]()
    for sequence in running:
        held[sequence.tenant] += sequence.num_slots
    part = (held.total() + num_free) // len({*held, first.tenant})
    missing = first.num_slots - num_free
    if missing <= 0 or held[first.tenant] + first.num_slots > part:
        return []
    most = max(held, key=lambda tenant: held[tenant])
    if held[most] - missing < part:
        return []
    # One whose further choices have not begun holds their slots too, and would give up all of them.
    candidates = [s for s in running if s.tenant == most and s.num_slots == 1]
    candidates.sort(key=lambda sequence: sequence.num_fed)
    return candidates[:missing] if len(candidates) >= missing else []
