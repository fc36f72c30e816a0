"""Calls as the server counts them: after the reply has left, so maybe after the caller has it."""

from __future__ import annotations

from support.waiting import until


async def until_counted(server, method, code, count=1, finish_reason="none"):
    """Wait until so many calls of a method have ended with a code; fails when there are others, or too few."""
    registry = server.service.memories._metrics.registry
    labels = {"method": method, "code": code, "finish_reason": finish_reason}
    await until(lambda: registry.get_sample_value("hope_requests_total", labels) == count)
