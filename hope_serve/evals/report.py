"""What an evaluation found: tables of figures, curves, and what they were taken on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

Cell = float | None
"""None: this does not exist, or was refused for its length."""


class Unit(Enum):
    """How a table's figures are spelled."""

    SHARE = "share"
    NUMBER = "number"

    def spell(self, value: Cell) -> str:
        """With as many digits as mean something."""
        if value is None:
            return "-"
        if self is Unit.SHARE:
            return f"{value:.1%}"
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of a table. ``count``: over how many questions or texts it was taken, 0 where that says nothing."""

    name: str
    cells: tuple[Cell, ...]
    count: int = 0


@dataclass(frozen=True, kw_only=True)
class Table:
    """Figures by row and arm. ``note`` stands below it."""

    title: str
    head: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    unit: Unit = Unit.SHARE
    note: str = ""

    def __post_init__(self) -> None:
        assert all(len(line.cells) == len(self.columns) for line in self.lines), self.title

    def cell(self, line: str, column: str) -> Cell:
        """One figure. Raises KeyError."""
        for one in self.lines:
            if one.name == line:
                return dict(zip(self.columns, one.cells, strict=True))[column]
        raise KeyError(line)


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Lines of points (x, y), one a name."""

    title: str
    x: str
    y: str
    series: Mapping[str, tuple[tuple[float, float], ...]]
    log_x: bool = False


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that one suite found, with what it was taken on and how. ``failures``: what was not measured, and why."""

    suite: str
    model: Mapping[str, Any]
    settings: Mapping[str, Any]
    tables: tuple[Table, ...]
    charts: tuple[Chart, ...] = ()
    notes: tuple[str, ...] = field(default=())
    failures: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is no figure in it at all."""
        return all(cell is None for table in self.tables for line in table.lines for cell in line.cells)

    def as_json(self) -> dict[str, Any]:
        """Plain values for ``json``."""
        tables = [asdict(table) | {"unit": table.unit.value} for table in self.tables]
        return asdict(self) | {"tables": tables, "charts": [asdict(chart) for chart in self.charts]}

    def as_markdown(self) -> str:
        """The tables and notes, as a page has them."""
        failures = ["\n".join(("Not measured:\n", *(f"- {one}" for one in self.failures)))] if self.failures else []
        return "\n\n".join([*(_markdown(table) for table in self.tables), *self.notes, *failures]) + "\n"


def _markdown(table: Table) -> str:
    counted = any(line.count for line in table.lines)
    heads = [table.head, *table.columns, *(["of"] if counted else [])]
    rows = [heads, ["---"] * len(heads)]
    for line in table.lines:
        cells = [table.unit.spell(cell) for cell in line.cells]
        rows.append([line.name, *cells, *([f"{line.count:,}"] if counted else [])])
    text = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"**{table.title}**\n\n{text}" + (f"\n\n{table.note}" if table.note else "")
