"""Who of those that run is read, and who draws, where a step has not room for all. No model code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as Seq

from hope_serve.engine.sequence import Sequence


def in_turn(prompts: list[Sequence], running: list[Sequence]) -> list[Sequence]:
    """Those first whose tenant was not fed for longest, then whose user was not, then that themselves were not.

    So nobody's short prompt waits until another's long one has been read.
    """
    if len(prompts) < 2:
        return prompts
    tenants: dict[str, int] = {}
    users: dict[tuple[str, str], int] = {}
    for one in running:
        tenants[one.tenant] = max(one.last_fed, tenants.get(one.tenant, 0))
        users[one.tenant, one.user] = max(one.last_fed, users.get((one.tenant, one.user), 0))
    return sorted(prompts, key=lambda one: (tenants[one.tenant], users[one.tenant, one.user], one.last_fed))


def rows_of(draws: list[Sequence], count: int) -> list[Sequence]:
    """``count`` of those that draw: tenants alike, and of each those first that have waited longest."""
    if count >= len(draws):
        return draws
    waited = sorted(draws, key=lambda sequence: sequence.last_drew)
    chosen = {waited[at] for at in shared_rows([sequence.tenant for sequence in waited], count)}
    return [sequence for sequence in draws if sequence in chosen]


def shared_rows(names: Seq[str], rows: int) -> list[int]:
    """Which of ``names``, one for each row that could be drawn, are drawn: nobody gets one more while others want it.

    Returns:
        Positions in ``names``, in order; of one name the first ones. Where there is not one for every name, those
        that want least go first.
    """
    wanted, taken = Counter(names), Counter[str]()
    ranked = []
    for at, name in enumerate(names):
        ranked.append((taken[name], wanted[name], at))
        taken[name] += 1
    return sorted(at for *_, at in sorted(ranked)[:rows])
