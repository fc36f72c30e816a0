"""Reports for people and programs: tables on the terminal, files in a folder."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path

from rich.console import Console
from rich.table import Table as Drawn

from hope_serve.evals.plots import can_draw, draw, picture_names
from hope_serve.evals.report import Report, Table


def print_report(report: Report) -> None:
    """Every table, then the notes."""
    console = Console(soft_wrap=False)
    for table in report.tables:
        console.print(_drawn(table, str(report.model.get("name", ""))))
    for note in (*report.notes, *(f"not measured: {one}" for one in report.failures)):
        console.print(note, markup=False)


def save_report(report: Report, folder: Path) -> list[Path]:
    """``<suite>-<model>.json``, ``.md`` and, where matplotlib is there, plots; their paths.

    Names of files hold letters, digits, '.', '_' and '-' alone, so that a link may hold them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prefix = f"{report.suite}-{file_name(str(report.model.get('name', 'model')))}"
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    data, page = folder / f"{prefix}.json", folder / f"{prefix}.md"
    pictures = picture_names(report, prefix) if can_draw() else ()
    kept = {"date": today} | report.as_json() | {"pictures": pictures}
    data.write_text(json.dumps(kept, indent=1, default=str) + "\n", encoding="utf-8")
    page.write_text(f"# {report.suite}, {report.model.get('name')}, {today}\n\n{report.as_markdown()}", "utf-8")
    return [data, page, *(draw(report, folder, pictures) if pictures else ())]


def file_name(text: str) -> str:
    """``text`` with a '-' for whatever a link or a shell might stumble over."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "unnamed"


def _drawn(table: Table, name: str) -> Drawn:
    counted = any(line.count for line in table.lines)
    drawn = Drawn(title=f"{name}: {table.title}", caption=table.note or None)
    drawn.add_column(table.head)
    for column in (*table.columns, *(("of",) if counted else ())):
        drawn.add_column(column, justify="right")
    for line in table.lines:
        cells = [table.unit.spell(cell) for cell in line.cells]
        drawn.add_row(line.name, *cells, *((f"{line.count:,}",) if counted else ()))
    return drawn
