"""What is left of one tenant's stream while another tenant takes all it can get, and how soon health checks answer.

    python -m benchmarks.fairness [--seconds 3] [--rounds 5] [--no-limits] [--only adapt]

Two tenants with a key each. The greedy one has four attackers: 16 choices of 2^20 tokens; 250 continuations of 1,000
tokens to weigh; a megabyte to tokenise; lessons of one user side by side. Prints the modest tenant's rate alone and
beside them. Both are measured by turns, since on a machine that others use, too, a minute is not like the next; the
share is the median of the rounds'.

With limits the wide attacks are refused and ask again; ``--no-limits`` lets all of them in.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Figure, write_report
from hope_serve.api import Delta, SamplingParams
from hope_serve.cli.server_process import ServerProcess
from hope_serve.client import AsyncHopeClient, ChannelOptions
from hope_serve.errors import Exhausted, HopeError
from hope_serve.identity import Scope
from hope_serve.identity.api_keys import NewKey, new_key

Attack = Callable[[AsyncHopeClient], Coroutine[None, None, None]]

SHARE, HEALTH_MS = 0.5, 100.0
LIMITS = """
[tenant_limits]
slots = 16
waiting_tokens = 65_536
[user_limits]
slots = 4
"""
MEGABYTE = "The quick brown fox jumps over the lazy dog. " * (2**20 // 46)


@dataclass(frozen=True, kw_only=True)
class Round:
    """Tokens a second of the modest stream alone and beside the attacks; seconds of health checks meanwhile."""

    alone: float
    beside: float
    health: list[float]
    refused: int


async def measure(seconds: float, rounds: int, attacks: Sequence[Attack], *, limits: bool) -> list[Figure]:
    """The modest tenant alone and beside the greedy one, by turns."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="hope-bench-") as folder:
        async with served(Path(folder), LIMITS if limits else "") as (modest, greedy):
            await rate(modest, 2.0)
            found = [await one_round(seconds, attacks, modest, greedy) for _ in range(rounds)]
    times = [time for one in found for time in one.health]
    shares = [one.beside / one.alone for one in found]
    return [
        Figure("a stream alone", statistics.median(one.alone for one in found), "tokens/s"),
        Figure(
            f"the same beside {', '.join(attack.__name__ for attack in attacks)}",
            statistics.median(one.beside for one in found),
            "tokens/s",
        ),
        Figure("share that is left", statistics.median(shares), "", f">= {SHARE}"),
        Figure("share that is left, the least round", min(shares), ""),
        Figure("health check meanwhile, the slowest", max(times) * 1e3, "ms", f"<= {HEALTH_MS:g}"),
        Figure("health check meanwhile, median", statistics.median(times) * 1e3, "ms"),
        Figure("attacks refused", float(sum(one.refused for one in found)), ""),
        Figure("load of the machine when it began", load, "processes"),
    ]


async def one_round(
    seconds: float, attacks: Sequence[Attack], modest: AsyncHopeClient, greedy: AsyncHopeClient
) -> Round:
    """Alone, then beside the attacks, once each of them is under way; then until nothing of them is left."""
    alone = await rate(modest, seconds)
    tasks = [asyncio.create_task(again_and_again(attack, greedy)) for attack in attacks]
    await asyncio.sleep(1.0)
    health = asyncio.create_task(health_times(modest, seconds))
    beside = await rate(modest, seconds)
    times = await health
    for task in tasks:
        task.cancel()
    refused = sum(await asyncio.gather(*tasks))
    await asyncio.sleep(1.0)
    return Round(alone=alone, beside=beside, health=times, refused=refused)


async def rate(client: AsyncHopeClient, seconds: float) -> float:
    """Tokens a second of one stream, from its first token on."""
    sampling = SamplingParams(max_tokens=2**20, ignore_eos=True)
    tokens, began = 0, 0.0
    stream = client.stream("tea", user_id="modest", sampling=sampling)
    async with contextlib.aclosing(stream) as events:  # type: ignore[type-var]
        async for event in events:
            now = time.perf_counter()
            if isinstance(event, Delta):
                began, tokens = began or now, tokens + len(event.token_ids)
            if began and now - began > seconds:
                break
    return tokens / (time.perf_counter() - began)


async def health_times(client: AsyncHopeClient, seconds: float) -> list[float]:
    """How long health checks take, one after the other."""
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        await client.is_serving("")
        times.append(time.perf_counter() - began)
        await asyncio.sleep(0.05)
    return times


async def generate(client: AsyncHopeClient) -> None:
    """All choices, all tokens."""
    await client.generate("tea", user_id="greedy", sampling=SamplingParams(n=16, max_tokens=2**20, ignore_eos=True))


async def score(client: AsyncHopeClient) -> None:
    """250 continuations of 1,000 tokens."""
    await client.score("tea", [[20] * 1000] * 250)


async def tokenize(client: AsyncHopeClient) -> None:
    """A megabyte of text."""
    await client.tokenize(MEGABYTE[: 2**20 - 64])


async def adapt(client: AsyncHopeClient) -> None:
    """Lessons of one user, side by side."""
    await asyncio.gather(*(client.adapt("greedy", MEGABYTE[:20_000]) for _ in range(4)))


ATTACKS = {attack.__name__: attack for attack in (generate, score, tokenize, adapt)}


async def again_and_again(attack: Attack, client: AsyncHopeClient) -> int:
    """Attack until cancelled; how often it was refused."""
    refused = 0
    try:
        while True:
            try:
                await attack(client)
            except HopeError as error:
                refused += 1
                await asyncio.sleep(error.retry_after if isinstance(error, Exhausted) else 0.1)
    except asyncio.CancelledError:
        return refused


@asynccontextmanager
async def served(home: Path, limits: str) -> AsyncIterator[tuple[AsyncHopeClient, AsyncHopeClient]]:
    """The bundled checkpoint, and a client of each tenant."""
    keys = home / "keys.json"
    shown = [new_key(keys, NewKey(tenant=tenant, scopes=tuple(Scope)))[1] for tenant in ("modest", "greedy")]
    config = home / "hope.toml"
    config.write_text(f'[identity]\nkey_file = "{keys}"\n{limits}')
    with ServerProcess(config=str(config), memory=f"sqlite://{home}/memory.db", log=home / "log") as server:
        options = [ChannelOptions(timeout_seconds=600, retries=False, credential=key) for key in shown]
        async with (
            AsyncHopeClient(server.target, options[0]) as modest,
            AsyncHopeClient(server.target, options[1]) as greedy,
        ):
            yield modest, greedy


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5, help="of two measurements each")
    parser.add_argument("--no-limits", action="store_true", help="without the limits of tenants and users")
    parser.add_argument("--only", choices=sorted(ATTACKS), help="one kind of attack instead of all four")
    parser.add_argument("--no-save", action="store_true", help="print only")
    given = parser.parse_args()
    attacks = [ATTACKS[given.only]] if given.only else list(ATTACKS.values())
    figures = asyncio.run(measure(given.seconds, given.rounds, attacks, limits=not given.no_limits))
    write_report("fairness-no-limits" if given.no_limits else "fairness", figures, save=not given.no_save)


if __name__ == "__main__":
    main()
