"""Reports as pictures; needs matplotlib, which the extra ``eval`` brings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hope_serve.evals.report import Chart, Report, Table, Unit

BAR_HEIGHT = 0.8
NO_PLOTS = "matplotlib is not installed, so no plots are drawn; pip install 'hope-serve[eval]' brings it"


def can_draw() -> bool:
    """Whether matplotlib is there."""
    return find_spec("matplotlib") is not None


def picture_names(report: Report, prefix: str) -> tuple[str, ...]:
    """``<prefix>-<title>.png`` of every table of shares and every chart, no two alike."""
    names: list[str] = []
    for one in _pictures(report):
        name = f"{prefix}-{_slug(one.title)}"
        names.append(f"{name}.png" if f"{name}.png" not in names else f"{name}-{len(names) + 1}.png")
    return tuple(names)


def draw(report: Report, folder: Path, names: Sequence[str]) -> list[Path]:
    """A PNG of every table of shares and every chart, under ``picture_names``; their paths."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    made = []
    for one, name in zip(_pictures(report), names, strict=True):
        figure, axes = pyplot.subplots(figsize=(9, _height(one)))
        _bars(axes, one) if isinstance(one, Table) else _lines(axes, one)
        axes.set_title(f"{report.model.get('name', '')}: {one.title}", fontsize="medium")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", ncols=2)
        path = folder / name
        figure.savefig(path, dpi=90, bbox_inches="tight")
        pyplot.close(figure)
        made.append(path)
    return made


def _pictures(report: Report) -> list[Table | Chart]:
    shares = [table for table in report.tables if table.unit is Unit.SHARE and table.lines]
    return [*shares, *report.charts]


def _bars(axes: Any, table: Table) -> None:
    """A group of bars a line, from the top."""
    width = BAR_HEIGHT / len(table.columns)
    for index, column in enumerate(table.columns):
        at = [row + index * width for row in range(len(table.lines))]
        axes.barh(at, [100 * (line.cells[index] or 0.0) for line in table.lines], width, label=column)
    middle = (BAR_HEIGHT - width) / 2
    axes.set_yticks([row + middle for row in range(len(table.lines))], [line.name for line in table.lines])
    axes.invert_yaxis()
    axes.set_xlabel("%")


def _lines(axes: Any, chart: Chart) -> None:
    for name, points in chart.series.items():
        axes.plot([x for x, _ in points], [y for _, y in points], marker=".", label=name)
    if chart.log_x:
        axes.set_xscale("log", base=2)
    axes.set_xlabel(chart.x)
    axes.set_ylabel(chart.y)


def _height(one: Table | Chart) -> float:
    return 1.5 + 0.14 * len(one.lines) * len(one.columns) if isinstance(one, Table) else 5.0


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:48].strip("-") or "picture"
