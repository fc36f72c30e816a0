"""Calls that may be made again without harm, made again: one lost answer is no reason not to start."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from hope_serve.errors import Unavailable

T = TypeVar("T")

_PAUSE_SECONDS = 0.05


async def insist(call: Callable[[], Awaitable[T]], *, seconds: float) -> T:
    """The call's result, from as many tries as there is time for.

    Raises:
        Unavailable: no try came through in time, or the store said why none ever will.
    """
    lost = Unavailable(f"the store did not answer within {seconds} s; try again")
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    return await call()
                except Unavailable as error:
                    if error.reason != lost.reason:
                        raise
                    lost = error
                await asyncio.sleep(_PAUSE_SECONDS)
    except TimeoutError as error:
        raise lost from error
