"""What was measured, where and when: one table on the terminal, one dated file."""

from __future__ import annotations

import datetime
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """One measured number. ``target``: what it should be, in words, when there is such a thing."""

    name: str
    value: float
    unit: str
    target: str = ""

    def spelled(self) -> str:
        """The value with as many digits as mean something."""
        return f"{self.value:,.0f}" if abs(self.value) >= 1000 else f"{self.value:.3g}"


def hardware() -> str:
    """Processor, cores, memory, system and versions, on one line; the card first, where there is one."""
    card = f"{torch.cuda.get_device_name()}; " if torch.cuda.is_available() else ""
    return (
        f"{card}{_processor()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, "
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"
    )


def write_report(name: str, figures: list[Figure], *, save: bool = True, notes: str = "") -> None:
    """Print the figures, and keep them, with ``notes`` behind them, as ``results/<date>-<name>.md``."""
    table = Table("figure", "measured", "unit", "target", title=f"{name}: {hardware()}")
    for figure in figures:
        table.add_row(figure.name, figure.spelled(), figure.unit, figure.target)
    Console(width=140).print(table)
    print(notes)
    if not save:
        return
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    rows = "\n".join(f"| {f.name} | {f.spelled()} | {f.unit} | {f.target} |" for f in figures)
    text = f"# {name}, {today}\n\n{hardware()}\n\n| figure | measured | unit | target |\n|---|---|---|---|\n{rows}\n"
    text += f"\n```\n{notes}\n```\n" if notes else ""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{today}-{name}.md").write_text(text)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
