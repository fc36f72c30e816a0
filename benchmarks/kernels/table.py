"""One line a measurement, on the terminal and in a dated file."""

from __future__ import annotations

import datetime
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import triton

from benchmarks.report import RESULTS, hardware


@dataclass(frozen=True)
class Row:
    """One measurement; ``met`` None where no target was set.

    figure: its number, or "check". seconds: of one call, where time was taken. rate: bytes or tokens a second, or
    what else was found. ratio: against what ``of`` says.
    """

    figure: str
    case: str
    seconds: float | None = None
    rate: str = ""
    ratio: float | None = None
    of: str = ""
    target: str = ""
    met: bool | None = None

    def cells(self) -> tuple[str, ...]:
        """The line's columns."""
        time = "" if self.seconds is None else f"{self.seconds * 1e6:,.1f} us"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f} {self.of}"
        return self.figure, self.case, time, self.rate, ratio, self.target, self.verdict()

    def verdict(self) -> str:
        """Whether the target was met, in a word."""
        return "" if self.met is None else "yes" if self.met else "NO"


def at_least(figure: str, case: str, seconds: float, rate: str, ratio: float, of: str, target: float | None) -> Row:
    """A row whose ratio should reach ``target``."""
    if target is None:
        return Row(figure, case, seconds, rate, ratio, of)
    return Row(figure, case, seconds, rate, ratio, of, f">= {target:g}", ratio >= target)


def at_most(figure: str, case: str, seconds: float, rate: str, ratio: float, of: str, target: float | None) -> Row:
    """A row whose ratio should stay below ``target``."""
    if target is None:
        return Row(figure, case, seconds, rate, ratio, of)
    return Row(figure, case, seconds, rate, ratio, of, f"<= {target:g}", ratio <= target)


def show(rows: list[Row]) -> None:
    """Print the lines."""
    for row in rows:
        figure, case, time, rate, ratio, target, met = row.cells()
        print(f"{figure:<7}{case:<60}{time:>12}  {rate:<40} {ratio:<17} {target:<9}{met}", flush=True)


def write(rows: list[Row], name: str, notes: dict[str, str]) -> Path:
    """The dated file, under $OUT where that is set; its name without ending."""
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    folder = Path(os.environ.get("OUT") or RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{today}-{name}"
    given = {"date": today, "hardware": place(), **notes}
    lines = "\n".join(f"| {' | '.join(row.cells())} |" for row in rows)
    head = "| figure | case | time | rate | ratio | target | met |\n|---|---|---|---|---|---|---|"
    facts = "\n".join(f"{key}: {value}  " for key, value in given.items())
    path.with_suffix(".md").write_text(f"# {name}, {today}\n\n{facts}\n\n{head}\n{lines}\n")
    path.with_suffix(".json").write_text(json.dumps(given | {"rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    return path


def place() -> str:
    """The machine and its versions, on one line."""
    text = f"{hardware()}, triton {triton.__version__}"
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        memory = f"{card.total_memory / 2**30:.0f} GiB, {card.multi_processor_count} multiprocessors"
        text = f"{card.name} ({memory}, CUDA {torch.version.cuda}), {text}"
    return text
