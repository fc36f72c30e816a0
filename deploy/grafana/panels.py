"""From a row of the table of metrics to a Grafana panel: the metric's kind decides the query, its name the unit."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import common, prometheus, timeseries
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from prometheus_client import Counter, Gauge

from hope_serve.metrics import Definition

PODS = 'job="$job", instance=~"$pod"'
QUANTILES = (0.5, 0.95, 0.99)
UNITS = {"seconds": "s", "ratio": "percentunit", "saturation": "percentunit"}
Query = tuple[str, str]
"""An expression, and the text of its legend."""


def panel_of(metric: Definition[Any], *by: str) -> timeseries.Panel:
    """The panel that shows ``metric``.

    Args:
        by: the labels that are told apart; none: all of the metric's.
    """
    name = metric.name.removeprefix("hope_").removesuffix("_total").removesuffix("_seconds").replace("_", " ")
    title = f"{name}, by {' and '.join(by)}" if by else name
    drawn = panel(title.capitalize(), metric.help, queries(metric, by), unit=unit_of(metric))
    return drawn if metric.buckets and metric.buckets[0] < 0 else drawn.min(0)


def panel(title: str, description: str, asked: list[Query], *, unit: str) -> timeseries.Panel:
    """A panel with one line for every series of every query."""
    legend = (
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.TABLE)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["mean", "max"])
    )
    drawn = timeseries.Panel().title(title).description(description).unit(unit).legend(legend).span(8).height(8)
    for number, (expression, text) in enumerate(asked):
        target = prometheus.Dataquery().expr(expression).legend_format(text).ref_id(chr(ord("A") + number)).range()
        drawn = drawn.with_target(target)
    return drawn


def queries(metric: Definition[Any], by: tuple[str, ...] = ()) -> list[Query]:
    """What to ask of ``metric``: a gauge's value by pod or label, a counter's rate, a histogram's quantiles."""
    apart = by or tuple(metric.labels)
    if metric.kind is Gauge and apart:
        return [(f"sum{_by(apart)} ({metric.name}{{{PODS}}})", _legend(apart, "all"))]
    if metric.kind is Gauge:
        return [(f"{metric.name}{{{PODS}}}", "{{instance}}")]
    if metric.kind is Counter:
        return [(f"sum{_by(apart)} (rate({metric.name}{{{PODS}}}[$__rate_interval]))", _legend(apart, "all"))]
    buckets = f"sum{_by((*apart, 'le'))} (rate({metric.name}_bucket{{{PODS}}}[$__rate_interval]))"
    shown = (0.95,) if apart else QUANTILES  # one quantile of every label's value, or every quantile of them all
    return [(f"histogram_quantile({q}, {buckets})", _legend(apart, f"p{q * 100:g}")) for q in shown]


def unit_of(metric: Definition[Any]) -> str:
    """Grafana's name of the unit."""
    if metric.kind is Counter:
        return "cps"
    return UNITS.get(metric.name.rpartition("_")[2], "short")


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""


def _legend(labels: tuple[str, ...], otherwise: str) -> str:
    return " ".join(f"{{{{{label}}}}}" for label in labels) or otherwise
