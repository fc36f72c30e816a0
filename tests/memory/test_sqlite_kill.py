"""kill -9 at any moment: nothing acknowledged is lost, nothing is applied twice."""

import asyncio
import random

import pytest
from support.store_victims import Victim, check


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kills", [12, pytest.param(400, marks=pytest.mark.nightly)])
async def test_killed_writers_lose_no_acknowledged_commit_and_apply_none_twice(tmp_path, kills):
    url = f"sqlite://{tmp_path}/memories.db"
    rng = random.Random()
    victims = [Victim(url, name) for name in ("a", "b")]
    for _ in range(kills // len(victims)):
        for victim in victims:
            victim.start()
        for victim in victims:
            victim.wait_for_work()
        await asyncio.sleep(rng.uniform(0, 0.08))
        for victim in victims:
            victim.kill()
    await check(url, victims)
