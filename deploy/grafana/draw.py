"""Draws the dashboards without Grafana: ``python -m deploy.grafana.draw PROMETHEUS FOLDER [SECONDS]``, an image each.

The panels' own queries are asked of a Prometheus, for the SECONDS (300) that have just passed.
"""

from __future__ import annotations

import json
import math
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PAGES = Path(__file__).parent / "dashboards"
COLUMNS = 3
PANEL_INCHES = (5.0, 2.6)
POINTS = 150
WINDOW = "30s"
MAX_NAMED = 10
UNITS = {"s": "seconds", "percentunit": "share", "cps": "a second"}


def main() -> int:
    """Draw every page."""
    draw_pages(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 300.0)
    return 0


def draw_pages(prometheus: str, folder: Path, seconds: float) -> None:
    """Every page as ``folder/NAME.png``."""
    for path in sorted(PAGES.glob("*.json")):
        draw(json.loads(path.read_text()), prometheus, seconds).savefig(folder / f"{path.stem}.png", dpi=70)


def draw(page: dict[str, Any], prometheus: str, seconds: float) -> Figure:
    """One page."""
    panels = [panel for panel in page["panels"] if panel["type"] != "row"]
    rows = math.ceil(len(panels) / COLUMNS)
    figure = Figure(figsize=(COLUMNS * PANEL_INCHES[0], rows * PANEL_INCHES[1] + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(page["title"], fontweight="bold")
    axes = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for panel, axis in zip(panels, axes, strict=False):
        _draw_panel(panel, axis, prometheus, seconds)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    return figure


def filled(expression: str, window: str) -> str:
    """A panel's expression with Grafana's variables filled in; rates are taken over ``window``."""
    variables = {"$__rate_interval": window, "$job": "hope-serve", "$pod": ".*"}
    for variable, value in variables.items():
        expression = expression.replace(variable, value)
    return expression


def _draw_panel(panel: dict[str, Any], axis: Axes, prometheus: str, seconds: float) -> None:
    for target in panel["targets"]:
        for name, times, values in _series(target, prometheus, seconds):
            axis.plot(times, values, label=name, linewidth=1.2)
    axis.set_title(panel["title"], fontsize=9)
    unit = panel["fieldConfig"]["defaults"]["unit"]
    axis.set_ylabel(UNITS.get(unit, ""), fontsize=7)
    axis.tick_params(labelsize=7)
    axis.set_xlabel("seconds", fontsize=7)
    if "min" in panel["fieldConfig"]["defaults"]:
        axis.set_ylim(bottom=0)
    if 0 < len(axis.lines) <= MAX_NAMED:
        axis.legend(fontsize=6, loc="upper left")


def _series(target: dict[str, Any], prometheus: str, seconds: float) -> list[tuple[str, list[float], list[float]]]:
    end = time.time()
    asked = urllib.parse.urlencode(
        {
            "query": filled(target["expr"], WINDOW),
            "start": end - seconds,
            "end": end,
            "step": max(1.0, seconds / POINTS),
        }
    )
    with urllib.request.urlopen(f"{prometheus}/api/v1/query_range?{asked}") as reply:  # noqa: S310  given by the user
        result = json.load(reply)["data"]["result"]
    return [
        (
            _named(target["legendFormat"], series["metric"]),
            [float(at) - end + seconds for at, _ in series["values"]],
            [float(value) for _, value in series["values"]],
        )
        for series in result
    ]


def _named(legend: str, labels: dict[str, str]) -> str:
    for label, value in labels.items():
        legend = legend.replace(f"{{{{{label}}}}}", value)
    return legend


if __name__ == "__main__":
    sys.exit(main())
