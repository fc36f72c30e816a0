"""A soak of seconds: what `make soak` does for half an hour, with every change of the fleet and every check."""

from __future__ import annotations

import pytest
from support.tiny_model import write_tiny_checkpoint

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


async def test_a_soak_of_seconds_meets_every_change_of_the_fleet_and_breaks_no_promise(tmp_path):
    from benchmarks.soak.__main__ import soak
    from benchmarks.soak.picture import draw

    pages = tmp_path / "pages"
    pages.mkdir()
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint", num_layers=1)
    soaked = await soak(tmp_path, checkpoint=checkpoint, seconds=45, every=4, num_users=8, pages=pages)
    assert soaked.faults == []
    assert {what for _, what in soaked.turnover.events} == {"replaced", "killed", "added", "sent away"}
    figures = {figure.name: figure.value for figure in soaked.figures}
    assert figures["Adapts found at the end"] == figures["Adapts acknowledged"] > 50
    assert {"tenants.png", "on-call.png"} <= {path.name for path in pages.iterdir()}
    draw(tmp_path / "soak.png", "soak", soaked.crowd.rounds, soaked.watch.samples, soaked.turnover.events)
    assert (tmp_path / "soak.png").stat().st_size > 10_000


async def test_a_promise_that_was_broken_is_found(tmp_path):
    """The judge itself: a memory that is gone, and one that has a lesson too many."""
    from support.server_running import connect, server_config

    from benchmarks.soak.crowd import Crowd
    from hope_serve.server.serve import running

    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint", num_layers=1)
    async with running(server_config(checkpoint, tmp_path)) as server, connect(server) as client:
        crowd = Crowd([client], 2)
        await crowd.run(seconds=1, rate=None)
        await crowd.rest()
        assert await crowd.check_promises() == crowd.acknowledged > 0
        assert crowd.faults == []
        await client.delete_memory("soak-0")
        await client.adapt("soak-1", [6, 7, 8], request_id="twice")
        await crowd.check_promises()
        assert len(crowd.faults) == 2
