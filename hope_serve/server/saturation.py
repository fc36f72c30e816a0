"""How full a pod is, in one number: what an autoscaler compares with its target."""

from __future__ import annotations

from hope_serve.config import EngineConfig
from hope_serve.metrics import Metrics


def saturation(metrics: Metrics, limits: EngineConfig, *, lessons: float) -> float:
    """The fullest of queue, slots and learning, in [0, 1].

    A queue may be longer than its limit, since a single long request is always let in; the pod is full then, not more.

    Args:
        lessons: exchanges that wait to be learned, as a share of how many may.
    """
    queue = metrics.queue_tokens.value() / limits.max_queue_tokens
    slots = metrics.memory_slots_used.value() / limits.max_slots
    return min(1.0, max(queue, slots, lessons))
