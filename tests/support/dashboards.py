"""The committed dashboards, and what their panels ask."""

from __future__ import annotations

import json
from dataclasses import dataclass

from support.promql import ROOT

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
    variables = {"$__rate_interval": window, "$job": "hope-serve", "$pod": ".*"}
    return [
        Asked(name, panel["title"], _filled(target["expr"], variables))
        for name, page in pages().items()
        for panel in page["panels"]
        for target in panel.get("targets", ())
    ]


def _filled(expression, variables):
    for variable, value in variables.items():
        expression = expression.replace(variable, value)
    return expression
