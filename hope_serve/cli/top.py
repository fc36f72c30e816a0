"""``hope-serve top``: one pod, live."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from hope_serve.cli.scrape import Scrape, Window
from hope_serve.metrics import OUTCOMES, Metrics

if TYPE_CHECKING:
    from hope_serve.metrics import Definition

SHARES = (0.5, 0.95, 0.99)
BAR_WIDTH = 40
REMEMBERED_SECONDS = 30.0
"""Rates and quantiles are those of so long: of one second they would only flicker."""


def top(
    metrics: Annotated[str, typer.Option(help="Where the pod's metrics are.")] = "http://127.0.0.1:9464/metrics",
    interval: Annotated[float, typer.Option(min=0.1, max=60.0, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look twice, print one view, and end.")] = False,
) -> None:
    """Show a pod at work: load, speed, learning and store, until Ctrl-C."""
    windows = _windows(metrics, interval)
    if once:
        Console().print(view(next(windows)))
        return
    with Live(screen=True, auto_refresh=False) as live:
        try:
            for window in windows:
                live.update(view(window), refresh=True)
        except KeyboardInterrupt:
            return


def view(window: Window) -> Group:
    """One screen."""
    return Group(_head(window.last), _load(window.last), _rates(window), _times(window), _learning(window))


def _windows(url: str, interval: float) -> Iterator[Window]:
    """Look again and again."""
    seen = [Scrape.take(url)]
    while True:
        time.sleep(interval)
        seen.append(Scrape.take(url))
        while len(seen) > 2 and seen[-1].at - seen[1].at >= REMEMBERED_SECONDS:
            seen.pop(0)
        yield Window(first=seen[0], last=seen[-1])


def _head(scrape: Scrape) -> Table:
    model, build = scrape.labels("hope_model_info"), scrape.labels("hope_build_info")
    head = Table.grid(padding=(0, 2))
    head.add_row(
        f"[bold]{model.get('name', '?')}[/] on {model.get('device', '?')}",
        f"hope-serve {build.get('version', '?')}",
        "store [green]up[/]" if scrape.value(Metrics.store_up) else "store [red]down[/]",
    )
    return head


def _load(scrape: Scrape) -> Table:
    table = Table(title="load", title_justify="left", show_header=False, box=None)
    full = scrape.value(Metrics.saturation)
    table.add_row("saturation", f"{full:.0%}", ProgressBar(total=1.0, completed=full, width=BAR_WIDTH))
    used, slots = scrape.value(Metrics.memory_slots_used), scrape.value(Metrics.memory_slots)
    table.add_row(
        "slots", f"{used:.0f} of {slots:.0f}", ProgressBar(total=slots or 1.0, completed=used, width=BAR_WIDTH)
    )
    table.add_row("running", f"{scrape.value(Metrics.requests_running):.0f}")
    table.add_row("learning", f"{scrape.value(Metrics.requests_adapting):.0f}")
    table.add_row(
        "waiting", f"{scrape.value(Metrics.requests_waiting):.0f}", f"{scrape.value(Metrics.queue_tokens):.0f} tokens"
    )
    return table


def _rates(window: Window) -> Table:
    table = Table("a second", "", title="rates", title_justify="left", box=None)
    rows: tuple[tuple[str, Definition[Any]], ...] = (
        ("calls", Metrics.requests_total),
        ("refused for want of room", Metrics.admission_rejected_total),
        ("tokens read", Metrics.prompt_tokens_total),
        ("tokens written", Metrics.generation_tokens_total),
        ("tokens learned", Metrics.adapt_tokens_total),
    )
    for name, metric in rows:
        table.add_row(name, f"{window.rate(metric):,.1f}")
    return table


def _times(window: Window) -> Table:
    table = Table(
        "milliseconds", *(f"p{share * 100:g}" for share in SHARES), title="times", title_justify="left", box=None
    )
    for name, metric, labels in (
        ("first token", Metrics.time_to_first_token_seconds, {}),
        ("between tokens", Metrics.inter_token_latency_seconds, {}),
        ("engine step", Metrics.engine_step_seconds, {}),
        ("restore", Metrics.request_restore_seconds, {}),
        ("adapt", Metrics.adapt_duration_seconds, {}),
        ("commit", Metrics.store_op_seconds, {"op": "commit"}),
    ):
        seconds = [window.quantile(metric, share, **labels) for share in SHARES]
        table.add_row(name, *("-" if s is None else f"{s * 1000:,.1f}" for s in seconds))
    return table


def _learning(window: Window) -> Table:
    table = Table("lessons a second", "", title="learning", title_justify="left", box=None)
    for outcome in OUTCOMES:
        if rate := window.rate(Metrics.adapt_total, outcome=outcome):
            table.add_row(outcome.replace("_", " "), f"{rate:.2f}")
    change = window.quantile(Metrics.adapt_nll_delta, 0.5)
    table.add_row("loss after minus before, nats a token, median", "-" if change is None else f"{change:+.2f}")
    return table
