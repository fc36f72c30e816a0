"""``mad``: recall, copying and compression, each by training two layers for a while in this process; no server.

HOPE's Titans stand beside a Transformer and a gated delta net of equal size, data and time.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from hope_serve.evals.progress import Bars
from hope_serve.evals.report import Chart, Line, Report, Table, Unit
from hope_serve.training.mad.models import KINDS
from hope_serve.training.mad.tasks import Compression, Copying, Recall, Task
from hope_serve.training.mad.train import Budget, Outcome, train

SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Mad:
    """Options. ``scale``: of the seconds that each model is trained on each task; 1 is two minutes."""

    scale: float = 1.0
    seed: int = 7
    name: str = "mad"

    def run(self, bars: Bars) -> Report:
        """Train every kind on every task."""
        budget = Budget(seconds=SECONDS * self.scale)
        tasks: tuple[Task, ...] = (Recall(), Copying(), Compression())
        found: dict[tuple[str, str], Outcome] = {}
        with bars.stage("train", len(tasks) * len(KINDS)) as step:
            for task in tasks:
                for kind in KINDS:
                    found[task.name, kind] = train(kind, task, budget, seed=self.seed)
                    step()
        return Report(
            suite=self.name,
            model={"name": "two-layers", "cores": os.cpu_count()},
            settings={"scale": self.scale, "seed": self.seed, "seconds": budget.seconds},
            tables=_tables(tasks, found, budget),
            charts=tuple(_chart(task, found) for task in tasks),
        )


def _tables(tasks: tuple[Task, ...], found: dict[tuple[str, str], Outcome], budget: Budget) -> tuple[Table, Table]:
    kinds = tuple(KINDS)
    right = [Line(name=t.name, cells=tuple(found[t.name, kind].accuracy for kind in kinds)) for t in tasks]
    steps = [Line(name=f"{t.name}: steps", cells=tuple(float(found[t.name, k].steps) for k in kinds)) for t in tasks]
    sizes = [
        Line(name=f"{t.name}: parameters", cells=tuple(float(found[t.name, k].num_parameters) for k in kinds))
        for t in tasks
    ]
    title = f"Right answers after {budget.seconds:.0f} s of training each"
    return (
        Table(title=title, head="task", columns=kinds, lines=tuple(right)),
        Table(title="What was trained", head="", columns=kinds, lines=(*steps, *sizes), unit=Unit.NUMBER),
    )


def _chart(task: Task, found: dict[tuple[str, str], Outcome]) -> Chart:
    series = {kind: tuple((at, 100 * share) for at, share in found[task.name, kind].curve) for kind in KINDS}
    return Chart(title=f"{task.name}, while it learns", x="seconds", y="% right", series=series)
