"""Generates deploy/grafana/dashboards: ``python -m deploy.grafana.generate``; with ``--check`` only compares."""

from __future__ import annotations

import sys
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef, VariableRefresh, VariableSort

from deploy.grafana.layout import LEARNING, ON_CALL, SERVING, STORE, TENANTS, Row
from deploy.grafana.panels import panel, panel_of

TARGET = Path(__file__).parent / "dashboards"
FIRST_PANEL_ID = 1


def main() -> int:
    """Write the dashboards, or say which ones are stale."""
    fresh = generate()
    on_disk = {path.name: path.read_text() for path in TARGET.glob("*.json")}
    stale = sorted(name for name in fresh.keys() | on_disk.keys() if fresh.get(name) != on_disk.get(name))
    if "--check" in sys.argv[1:]:
        if stale:
            remedy = "run `python -m deploy.grafana.generate`"
            print(f"stale in deploy/grafana/dashboards: {', '.join(stale)}; {remedy}", file=sys.stderr)
        return len(stale) > 0
    for name in on_disk.keys() - fresh.keys():
        (TARGET / name).unlink()
    for name, text in fresh.items():
        (TARGET / name).write_text(text)
    return 0


def generate() -> dict[str, str]:
    """File name to text of every dashboard."""
    pages = {
        "on-call": _on_call(),
        "serving": _page("serving", "Calls, speed, tokens and load.", SERVING),
        "learning": _page("memory and learning", "What is learned, and where memories are.", LEARNING),
        "store": _page("store", "Where memories rest.", STORE),
        "tenants": _page("tenants", "Who uses what. A pod names the first 16 that it meets; others are one.", TENANTS),
    }
    return {f"{name}.json": _encoded(name, page) for name, page in pages.items()}


def _page(title: str, description: str, rows: tuple[Row, ...]) -> dashboard.Dashboard:
    page = _empty(title, description)
    for caption, shown in rows:
        page = page.with_row(dashboard.Row(caption))
        for metric, by in shown:
            page = page.with_panel(panel_of(metric, *by).datasource(_source()))
    return page


def _on_call() -> dashboard.Dashboard:
    page = _empty("on call", "The numbers to look at first; deploy/README.md says what to do about each alert.")
    for title, description, asked, unit in ON_CALL:
        page = page.with_panel(panel(title, description, asked, unit=unit).min(0).datasource(_source()))
    return page


def _empty(title: str, description: str) -> dashboard.Dashboard:
    return (
        dashboard.Dashboard(f"hope-serve: {title}")
        .description(description)
        .tags(["hope-serve"])
        .refresh("30s")
        .time("now-1h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("source").label("Prometheus").type("prometheus"))
        .with_variable(_choice("job", "label_values(hope_build_info, job)"))
        .with_variable(_choice("pod", 'label_values(hope_build_info{job="$job"}, instance)', every=True))
        .link(dashboard.DashboardLink("hope-serve").tags(["hope-serve"]).as_dropdown(True).keep_time(True))
    )


def _choice(name: str, query: str, *, every: bool = False) -> dashboard.QueryVariable:
    chosen = (
        dashboard.QueryVariable(name)
        .query(query)
        .datasource(_source())
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )
    return chosen.include_all(True).multi(True).all_value(".*") if every else chosen


def _source() -> DataSourceRef:
    return DataSourceRef(type_val="prometheus", uid="${source}")


def _encoded(name: str, page: dashboard.Dashboard) -> str:
    built = page.uid(f"hope-serve-{name}").build()
    for number, shown in enumerate(built.panels or (), FIRST_PANEL_ID):
        shown.id_val = number
    return JSONEncoder(sort_keys=True, indent=2).encode(built) + "\n"


if __name__ == "__main__":
    sys.exit(main())
