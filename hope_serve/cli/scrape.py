"""A pod's metrics as numbers: what it says now, and what happened between two looks."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

from hope_serve.errors import InvalidRequest, Unavailable
from hope_serve.metrics import Definition, M

TIMEOUT_SECONDS = 5.0
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Scrape:
    """Every sample of one look, by name and labels, and when it was, in seconds of the monotonic clock."""

    at: float
    samples: Mapping[tuple[str, Labels], float]

    @classmethod
    def take(cls, url: str) -> Self:
        """Look now.

        Raises:
            InvalidRequest: the URL is not one of HTTP.
            Unavailable: nobody answers there with metrics of Prometheus.
        """
        if not url.startswith(("http://", "https://")):
            raise InvalidRequest("--metrics", f"{url!r} is no URL of HTTP; write http://host:port/metrics")
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as reply:  # noqa: S310  the scheme is checked
                text = reply.read().decode()
            families = list(text_string_to_metric_families(text))
        except (OSError, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise Unavailable(f"no metrics can be read at {url}: {reason}", reason="NO_METRICS") from error
        samples = {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}
        return cls(at=time.monotonic(), samples=samples)

    def value(self, metric: Definition[M]) -> float:
        """The sum of a gauge's or counter's series; 0 when there is none."""
        return sum(self._each(metric.name))

    def labels(self, name: str) -> dict[str, str]:
        """The labels of the first series called ``name``; none when there is no such series."""
        return next((dict(labels) for found, labels in self.samples if found == name), {})

    def _each(self, name: str) -> Iterator[float]:
        return (value for (found, _), value in self.samples.items() if found == name)


@dataclass(frozen=True, kw_only=True)
class Window:
    """What happened between two looks at one pod. A counter that fell has begun anew: the pod was restarted."""

    first: Scrape
    last: Scrape

    def rate(self, metric: Definition[M], **labels: str) -> float:
        """Events a second, of the series that have these labels."""
        seconds = self.last.at - self.first.at
        return sum(self._growth(metric.name, labels).values()) / seconds if seconds > 0 else 0.0

    def quantile(self, metric: Definition[M], share: float, **labels: str) -> float | None:
        """A histogram's quantile, by straight lines within buckets; None when nothing was observed."""
        ends: dict[float, float] = {}
        for series, growth in self._growth(f"{metric.name}_bucket", labels).items():
            end = float(dict(series)["le"])
            ends[end] = ends.get(end, 0.0) + growth
        return _quantile(sorted(ends.items()), share)

    def _growth(self, name: str, labels: Mapping[str, str]) -> dict[Labels, float]:
        """How much every matching series grew."""
        grown = {}
        for (found, series), value in self.last.samples.items():
            if found == name and labels.items() <= dict(series).items():
                before = self.first.samples.get((found, series), 0.0)
                grown[series] = value - before if value >= before else value
        return grown


def _quantile(buckets: list[tuple[float, float]], share: float) -> float | None:
    """``buckets``: upper ends and counts up to them, both rising."""
    if not buckets or not buckets[-1][1]:
        return None
    wanted, below = share * buckets[-1][1], 0.0
    low = min(0.0, buckets[0][0])  # what is below the lowest end of losses is shown as that end
    for end, count in buckets:
        if count >= wanted and count > below:
            return low if end == float("inf") else low + (end - low) * (wanted - below) / (count - below)
        low, below = end, count
    return low
