"""Who can go into a step while slots are still being filled. No model code."""

from __future__ import annotations

from hope_serve.engine.sequence import Sequence

HOLD_PLANS = 4


class Arrivals:
    """Leaves out those whose slot is still being filled, and for a while those who would begin without them.

    A pass over prompts costs the same for one short prompt as for many. So prompts that begin wait for others that
    are on their way, while somebody draws, for up to ``hold_plans`` plans; a prompt that was begun goes on.
    """

    def __init__(self, hold_plans: int = HOLD_PLANS) -> None:
        self.hold_plans = hold_plans
        self._num_held = 0

    def ready(self, running: list[Sequence]) -> list[Sequence]:
        """Those that the next plan may hold."""
        here = [sequence for sequence in running if not sequence.is_arriving]
        waits = len(here) < len(running) and any(sequence.draws for sequence in here)
        if not waits or self._num_held >= self.hold_plans:
            self._num_held = 0
            return here
        self._num_held += 1
        return [sequence for sequence in here if sequence.num_fed or sequence.lesson]
