"""The committed dashboards, and what their panels ask."""

from __future__ import annotations

import json
from dataclasses import dataclass

from support.promql import ROOT

from deploy.grafana.draw import filled

FOLDER = ROOT / "deploy" / "grafana" / "dashboards"


@dataclass(frozen=True)
class Asked:
    """One query of one panel, with Grafana's variables filled in."""

    page: str
    panel: str
    expression: str

    def __str__(self):
        return f"{self.page}: {self.panel}: {self.expression}"


def pages():
    """File name without its ending, to the dashboard."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def queries(*, window="1m"):
    """Every query of every panel; rates are taken over ``window``."""
    return [
        Asked(name, panel["title"], filled(target["expr"], window))
        for name, page in pages().items()
        for panel in page["panels"]
        for target in panel.get("targets", ())
    ]
