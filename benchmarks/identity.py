"""What credentials and limits cost a single trusted user on loopback.

    python -m benchmarks.identity [--pairs 60] [--no-save]

Four servers in processes of their own: two that ask nobody who they are, two that know keys and tokens and keep limits.
The same calls go to each of them in turn, in a new order every round. Compared is the time that a fifth of the rounds
kept within, since others who use the machine only ever add to it. The two open servers against each other show what is
noise: a process has its luck with memory and caches.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from benchmarks.report import Figure, write_report
from hope_serve.api import AdaptMode, AdaptOptions, SamplingParams
from hope_serve.cli.server_process import ServerProcess
from hope_serve.client import AsyncHopeClient, ChannelOptions
from hope_serve.identity import Scope
from hope_serve.identity.api_keys import NewKey, new_key

MOST = 2.0
"""Per cent that the path of a single trusted user may be slower."""
LESSON = "My dog is called Biscuit, and my sister lives in Bergen. " * 4
LIMITS = """
[tenant_limits]
slots = 64
waiting_tokens = 1_000_000
generate_tokens_per_second = 1e9
learn_tokens_per_second = 1e9
max_tokens = 4096
[user_limits]
slots = 16
waiting_tokens = 100_000
generate_tokens_per_second = 1e9
learn_tokens_per_second = 1e9
max_tokens = 4096
"""

Call = Callable[[AsyncHopeClient], Awaitable[object]]


async def generate(client: AsyncHopeClient) -> None:
    """16 tokens with a memory, as they appear."""
    sampling = SamplingParams(temperature=0.0, max_tokens=16, ignore_eos=True)
    async for _ in client.stream("tea", user_id="ann", sampling=sampling):
        pass


async def adapt(client: AsyncHopeClient) -> None:
    """A lesson that is not kept."""
    await client.adapt("ann", LESSON, options=AdaptOptions(mode=AdaptMode.DRY_RUN))


async def get_model(client: AsyncHopeClient) -> None:
    """The smallest call, twenty times."""
    for _ in range(20):
        await client.get_model()


CALLS: dict[str, Call] = {"Generate of 16 tokens": generate, "Adapt of 70 tokens": adapt, "20 GetModel": get_model}


@dataclass(frozen=True, kw_only=True)
class Way:
    """A client of one server. kind: open, key or token."""

    kind: str
    client: AsyncHopeClient


async def measure(pairs: int) -> list[Figure]:
    """Every call on every way, in rounds."""
    with tempfile.TemporaryDirectory(prefix="hope-bench-") as folder:
        async with AsyncExitStack() as stack:
            ways = [way for i in range(2) for way in await opened(Path(folder), i, stack)]
            for way in ways:
                await way.client.adapt("ann", LESSON)
            figures = []
            for name, call in CALLS.items():
                rounds = [await one_round(ways, call) for _ in range(pairs + 3)][3:]
                figures += compared(name, ways, rounds)
    return figures


async def one_round(ways: list[Way], call: Call) -> list[float]:
    """Seconds of the call on each way."""
    taken = [0.0] * len(ways)
    for at in random.sample(range(len(ways)), len(ways)):
        began = time.perf_counter()
        await call(ways[at].client)
        taken[at] = time.perf_counter() - began
    return taken


def compared(name: str, ways: list[Way], rounds: list[list[float]]) -> list[Figure]:
    """Each kind of credential against the open servers."""
    quick = [sorted(taken)[len(rounds) // 5] for taken in zip(*rounds, strict=True)]
    of = {kind: [quick[at] for at, way in enumerate(ways) if way.kind == kind] for kind in ("open", "key", "token")}
    first, second = of["open"]
    alone = statistics.fmean(of["open"])
    figures = [
        Figure(f"{name}, nobody asked", alone * 1e3, "ms"),
        Figure(f"{name}, one open server against the other", 100 * (second / first - 1), "% slower"),
    ]
    for kind in ("key", "token"):
        slower = 100 * (statistics.fmean(of[kind]) / alone - 1)
        target = f"<= {MOST:g}" if name != "20 GetModel" else ""
        figures.append(Figure(f"{name}, with a {kind} and limits", slower, "% slower", target))
    return figures


async def opened(home: Path, number: int, stack: AsyncExitStack) -> list[Way]:
    """An open server and a guarded one, with a client for each kind of credential."""
    private = ec.generate_private_key(ec.SECP256R1())
    keys, jwks, config = (home / f"{number}-{name}" for name in ("keys.json", "jwks.json", "hope.toml"))
    key = new_key(keys, NewKey(tenant="acme", scopes=tuple(Scope)))[1]
    jwks.write_text(json.dumps({"keys": [ECAlgorithm.to_jwk(private.public_key(), as_dict=True) | {"kid": "k"}]}))
    config.write_text(
        f'[identity]\nkey_file = "{keys}"\njwks = "{jwks}"\nissuer = "https://i"\naudience = "hope"\n{LIMITS}'
    )
    said = {"iss": "https://i", "aud": "hope", "exp": int(time.time()) + 3600, "tenant": "acme"}
    scopes = " ".join(scope.value for scope in Scope)
    token = jwt.encode(said | {"sub": "bench", "scope": scopes}, private, "ES256", {"kid": "k"})
    ways = []
    shown = {"open": {"open": ""}, "guarded": {"key": key, "token": token}}
    for kind, credentials in shown.items():
        settings = {"config": str(config)} if kind == "guarded" else {}
        store = f"sqlite://{home}/{number}-{kind}.db"
        server = stack.enter_context(ServerProcess(memory=store, log=home / "log", **settings))
        for name, credential in credentials.items():
            options = ChannelOptions(timeout_seconds=600, retries=False, credential=credential)
            client = await stack.enter_async_context(AsyncHopeClient(server.target, options))
            ways.append(Way(kind=name, client=client))
    return ways


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=60, help="rounds of each call")
    parser.add_argument("--no-save", action="store_true", help="print only")
    given = parser.parse_args()
    write_report("identity", asyncio.run(measure(given.pairs)), save=not given.no_save)


if __name__ == "__main__":
    main()
