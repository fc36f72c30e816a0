"""Waits for what comes true by itself, and for no longer than it may take."""

from __future__ import annotations

import asyncio
import inspect
import time


async def until(true, seconds=10.0):
    """Ask again and again, ``true()`` or ``await true()``; fails when it has not come true in time."""
    give_up = time.monotonic() + seconds
    while True:
        answer = true()
        if await answer if inspect.isawaitable(answer) else answer:
            return
        assert time.monotonic() < give_up, f"it did not come true within {seconds} s"
        await asyncio.sleep(0.02)
