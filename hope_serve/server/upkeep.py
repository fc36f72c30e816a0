"""What a serving pod does to the whole store now and then. Every pod may: the jobs can be repeated at will."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hope_serve.config import MemoryConfig
from hope_serve.errors import HopeError
from hope_serve.memory.expiry import Terms
from hope_serve.memory.upkeep import Upkeep

MISSED_PASSES = 4
MIN_GAP_SECONDS = 60.0
"""With a longer gap between two looks, the graces of all quarantines begin anew."""

log = logging.getLogger(__name__)


@asynccontextmanager
async def upkeep_job(upkeep: Upkeep, config: MemoryConfig) -> AsyncIterator[None]:
    """Erase idle memories and count usage again, every ``upkeep_seconds``, while inside; if there is such a limit."""
    if not (config.max_idle_seconds or _counts(config)):
        yield
        return
    task = asyncio.get_running_loop().create_task(_again_and_again(upkeep, config), name="upkeep")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def keep_up(upkeep: Upkeep, config: MemoryConfig) -> str:
    """Do it once; what was done, in words."""
    done = []
    if config.max_idle_seconds:
        expired = await upkeep.expire(_terms(config))
        done.append(
            f"of {expired.seen} memories {expired.erased} were idle and are erased, "
            f"{expired.quarantined} are in quarantine"
        )
        if expired.implausible:
            done.append(f"{expired.implausible} were last changed in the future and are left")
        if expired.damaged:
            done.append(f"{len(expired.damaged)} damaged ones are left: {', '.join(expired.damaged)}")
    if _counts(config):
        done.append(f"the usage of {(await upkeep.recount()).seen} memories is counted")
    return "; ".join(done) or "there is nothing to do: neither memory.max_idle_seconds nor a tenant's limit is set"


async def _again_and_again(upkeep: Upkeep, config: MemoryConfig) -> None:
    while True:
        # Pods that were started together do not all look at once.
        await asyncio.sleep(config.upkeep_seconds * random.uniform(0.8, 1.2))  # noqa: S311  not secret
        try:
            log.info("upkeep: %s", await keep_up(upkeep, config))
        except HopeError as error:
            log.warning("upkeep is put off until the next time: %s", error)


def _terms(config: MemoryConfig) -> Terms:
    return Terms(
        idle_seconds=config.max_idle_seconds,
        grace_seconds=config.expiry_grace_seconds,
        max_gap_seconds=max(MISSED_PASSES * config.upkeep_seconds, MIN_GAP_SECONDS),
    )


def _counts(config: MemoryConfig) -> bool:
    return bool(config.max_tenant_bytes or config.max_tenant_users)
