"""Three pods behind an Envoy at 70 % load, while pods come, go and are killed.

    PYTHONPATH=tests python -m benchmarks.soak [--minutes 30] [--every 60] [--users 32] [--note WORDS] [--pages FOLDER]

Fails when a call ended in anything but an answer, when an acknowledged Adapt is lost or was applied twice, or when the
memory of a pod that stayed is not flat. Writes a dated file and a picture to benchmarks/results; runs of less than 30
minutes write nothing unless ``--save`` is given.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from support.stack import PODS, Stack

from benchmarks.report import RESULTS, Figure, hardware, write_report
from benchmarks.soak.crowd import Crowd
from benchmarks.soak.picture import draw
from benchmarks.soak.turnover import Turnover
from benchmarks.soak.watch import Watch
from deploy.grafana.draw import draw_pages
from hope_serve.cli.load import percentiles
from hope_serve.client import AsyncHopeClient
from hope_serve.client.channel import ChannelOptions
from hope_serve.config import BUNDLED_CHECKPOINT
from hope_serve.identity import Scope
from hope_serve.identity.api_keys import NewKey, new_key

LOAD = 0.7
WARM_SECONDS = 20.0
CALIBRATION_SHARE = 0.03
MIN_CALIBRATION_SECONDS = 10.0
LOOKS = 720
MAX_GROWTH = 1.05
JUDGED_SECONDS = 600.0
"""In less, caches are still filling."""
FULL_MINUTES = 30.0
TENANTS = ("acme", "globex", "initech")
SCOPES = (Scope.GENERATE, Scope.ADAPT, Scope.MEMORY_READ)
STORE_SETTINGS = {"auto_aof_rewrite_percentage": 100, "auto_aof_rewrite_min_size": "256mb"}


@dataclass(frozen=True, kw_only=True)
class Soaked:
    """What came of it."""

    figures: list[Figure]
    faults: list[str]
    crowd: Crowd
    watch: Watch
    turnover: Turnover


async def soak(
    folder: Path, *, checkpoint: Path, seconds: float, every: float, num_users: int, pages: Path | None = None
) -> Soaked:
    """Run it, and look at every memory at the end; draw the dashboards into ``pages``."""
    keys = folder / "keys.json"
    shown = [new_key(keys, NewKey(tenant=tenant, scopes=SCOPES))[1] for tenant in TENANTS]
    async with (
        Stack(folder, checkpoint, store=STORE_SETTINGS, pods={"set": f"identity.key_file={keys}"}) as stack,
        AsyncExitStack() as closing,
    ):
        clients = [await closing.enter_async_context(_client(stack.envoy.target, credential)) for credential in shown]
        crowd, watch, turnover = Crowd(clients, num_users), Watch(stack), Turnover(stack)
        capacity = await _capacity(crowd, seconds)
        beside = [
            asyncio.create_task(watch.run(max(1.0, seconds / LOOKS))),
            asyncio.create_task(turnover.run(every)),
        ]
        await crowd.run(seconds=seconds, rate=LOAD * capacity)
        await _stop(beside)
        if pages:
            await asyncio.to_thread(draw_pages, stack.prometheus.url, pages, min(seconds, 600.0))
        await crowd.rest()
        found = await crowd.check_promises()
    figures = _figures(crowd, watch, turnover, capacity=capacity, found=found, seconds=seconds)
    faults = list(crowd.faults)
    if seconds >= JUDGED_SECONDS and watch.growth() > MAX_GROWTH:
        faults.append(f"the memory of the pod that stayed grew to {watch.growth():.3f} of what it was")
    return Soaked(figures=figures, faults=faults, crowd=crowd, watch=watch, turnover=turnover)


def _client(target: str, credential: str) -> AsyncHopeClient:
    return AsyncHopeClient(target, ChannelOptions(credential=credential))


async def _capacity(crowd: Crowd, seconds: float) -> float:
    """Rounds a second when everybody calls, once everybody has."""
    await crowd.run(seconds=min(WARM_SECONDS, seconds / 4), rate=None)
    capacity = await crowd.run(seconds=max(MIN_CALIBRATION_SECONDS, CALIBRATION_SHARE * seconds), rate=None)
    await crowd.rest()
    crowd.rounds.clear()
    crowd.late = 0
    return capacity


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel them. Raises what one of them ended with before."""
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended


def _figures(
    crowd: Crowd, watch: Watch, turnover: Turnover, *, capacity: float, found: int, seconds: float
) -> list[Figure]:
    times = percentiles([took for _, took in crowd.rounds])
    events = [what for _, what in turnover.events]
    return [
        Figure("minutes", seconds / 60, "min"),
        Figure("rounds (Adapt, Generate, stream) that three pods manage, everybody calling", capacity, "1/s"),
        Figure("rounds begun", LOAD, "of that"),
        Figure("rounds ended", len(crowd.rounds), ""),
        Figure("rounds that waited for a user, since all were under way", crowd.late, ""),
        Figure("a round, p50", times["p50"], "ms"),
        Figure("a round, p99", times["p99"], "ms"),
        *(Figure(f"pods {what}", events.count(what), "") for what in ("replaced", "killed", "added", "sent away")),
        Figure("calls UNAVAILABLE even behind the client's own retries, sent again", crowd.retries.total(), ""),
        Figure("calls that ended in any other error", len(crowd.faults), "", "0"),
        Figure("Adapts acknowledged", crowd.acknowledged, ""),
        Figure("Adapts found at the end", found, "", "as many"),
        Figure("resident memory of the pod that stayed, at the end", watch.samples[-1].stayed, "MiB"),
        Figure("… last fifth over second fifth", watch.growth(), "times", f"<= {MAX_GROWTH:g}"),
        Figure("the store's data, last fifth over second fifth", watch.store_growth(), "times"),
    ]  # fmt: skip


def main() -> int:
    """Run, report, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=FULL_MINUTES)
    parser.add_argument("--every", type=float, default=60.0, help="seconds between changes of the fleet: %(default)s")
    parser.add_argument("--users", type=int, default=32, help="who take turns: %(default)s")
    parser.add_argument("--note", default="", help="what else the machine did, for the result")
    parser.add_argument("--save", action="store_true", help="write the result of a short run as well")
    parser.add_argument("--pages", type=Path, help="a folder, to draw the dashboards of the last 10 minutes there")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // PODS)))  # the pods share the cores
    with tempfile.TemporaryDirectory(prefix="hope-soak-") as folder:
        soaked = asyncio.run(
            soak(
                Path(folder), checkpoint=BUNDLED_CHECKPOINT, seconds=60 * options.minutes, every=options.every,
                num_users=options.users, pages=options.pages,
            )
        )  # fmt: skip
    notes = [options.note, *(f"sent again, {call}: {count}" for call, count in soaked.crowd.retries.items())]
    save = options.save or options.minutes >= FULL_MINUTES
    write_report("soak", soaked.figures, save=save, notes="\n".join(filter(None, [*notes, *soaked.faults[:20]])))
    if save:
        today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        title = f"soak, {today}, {hardware()}"
        draw(RESULTS / f"{today}-soak.png", title, soaked.crowd.rounds, soaked.watch.samples, soaked.turnover.events)
    return len(soaked.faults) > 0


if __name__ == "__main__":
    sys.exit(main())
