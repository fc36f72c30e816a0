"""The dashboards are fresh, ask valid PromQL about metrics that exist, show all of them, and are Grafana's JSON."""

from __future__ import annotations

import json

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from support.dashboards import pages, queries
from support.promql import selectors, unknown

from deploy.grafana import generate
from hope_serve.metrics import definitions

PAGES = pages()
ASKED = queries()


def test_the_pages_are_those_that_the_table_of_metrics_gives(monkeypatch):
    monkeypatch.setattr("sys.argv", ["generate", "--check"])
    assert generate.main() == 0


def test_a_stale_page_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generate, "TARGET", tmp_path)
    monkeypatch.setattr("sys.argv", ["generate", "--check"])
    (tmp_path / "store.json").write_text("{}")
    assert generate.main() == 1
    assert "store.json" in capsys.readouterr().err


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_a_panel_asks_about_metrics_that_exist(asked):
    assert unknown(asked.expression) == []


def test_every_metric_has_a_panel():
    shown = {name.removesuffix("_bucket") for asked in ASKED for name, _ in selectors(asked.expression)}
    assert [row.name for row in definitions() if row.name not in shown] == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_grafana_reads(name):
    page = Dashboard.from_json(PAGES[name])
    assert json.loads(JSONEncoder(sort_keys=True).encode(page)) == PAGES[name]
    panels = page.panels or []
    assert len({panel.id_val for panel in panels}) == len(panels)
    assert all(panel.description for panel in panels if panel.type_val != "row")
    assert page.uid == f"hope-serve-{name}"


def test_the_page_of_tenants_tells_them_apart_in_every_panel():
    panels = [panel for panel in PAGES["tenants"]["panels"] if panel["type"] != "row"]
    assert len(panels) == 5
    for panel in panels:
        [target] = panel["targets"]
        assert target["expr"].startswith("sum by (tenant")
        assert target["legendFormat"].startswith("{{tenant}}")
