"""What a generation's events say about its speed."""

from __future__ import annotations

import time
from dataclasses import replace

from hope_serve.api import Delta, Ended, GenerateEvent
from hope_serve.metrics import Metrics


class Latency:
    """Times one generation, from when its memory was restored.

    Args:
        tier: where the memory was found.
        began: when the call arrived, on the monotonic clock.
    """

    def __init__(self, metrics: Metrics, *, tier: str, began: float) -> None:
        self._metrics, self._tier, self._began = metrics, tier, began
        self._restored = time.monotonic() - began
        self._last: dict[int, float] = {}
        metrics.request_restore_seconds().observe(self._restored)

    def seen(self, event: GenerateEvent) -> GenerateEvent:
        """Record an event; an end learns how long restoring took."""
        if isinstance(event, Delta) and event.token_ids:
            self._token(event)
        if not isinstance(event, Ended):
            return event
        self._end(event)
        return replace(event, timings=replace(event.timings, restore_seconds=self._restored))

    def _token(self, event: Delta) -> None:
        """Tokens that come in one message share the time since the last; those with the first came with it."""
        now, metrics, gaps = time.monotonic(), self._metrics, len(event.token_ids)
        if event.choice not in self._last:
            gaps -= 1
            if not self._last:
                metrics.time_to_first_token_seconds(memory_tier=self._tier).observe(now - self._began)
        each = (now - self._last.get(event.choice, now)) / max(1, gaps)
        latency = metrics.inter_token_latency_seconds()
        for _ in range(gaps):
            latency.observe(each)
        self._last[event.choice] = now

    def _end(self, event: Ended) -> None:
        metrics, timings = self._metrics, event.timings
        metrics.request_queue_seconds().observe(timings.queue_seconds)
        metrics.request_prefill_seconds().observe(timings.prefill_seconds)
        metrics.request_decode_seconds().observe(timings.decode_seconds)
