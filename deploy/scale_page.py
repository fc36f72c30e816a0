"""The words around the figures of deploy/SCALE.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploy.scale import Day, Measured, Need

AFFINITY_VALUES = 16**4
RING_POINTS = 1024
SERIES_A_POD = 1000
TIMES = "\u00d7"
WORDS = """\
## What this says

Memories, not tokens, are what a large service pays for: the store keeps every user, cards only those who talk. Three
things make it smaller: fewer versions (`memory.keep_versions`), expiry of idle memories (`memory.max_idle_seconds`),
and smaller online levels. Restores decide the rest of the store: each call that finds its memory warm is one less, so
give pods RAM (`engine.max_warm_bytes`) and keep the proxy's affinity.

What the arithmetic leaves out: pods add up linearly (they share nothing but the store); a card's second is divided
among reading, writing and learning as if they did not disturb each other; the store's figures are those of a small
machine, and its network is taken to be as fast as its memory; a stored memory is taken to be as large as on the
device."""


@dataclass(frozen=True)
class Limit:
    """Something of which there is only so much. ``used``: how much of it is needed."""

    name: str
    most: float
    used: Callable[[Need], float]
    remedy: str


LIMITS = (
    Limit(
        "nodes of one Redis Cluster, primaries and replicas", 1000, lambda need: 2 * need.shards,
        "several clusters, each with tenants or ranges of users of its own; memories of idle users on disk",
    ),
    Limit(
        "pods that 16 bits of a user's digest spread evenly (100 values a pod)", AFFINITY_VALUES / 100,
        lambda need: need.pods, "more digits in `x-hope-user` (`client/affinity.py` and its TypeScript twin)",
    ),
    Limit(
        "pods on a ring of 1,024 points (10 a pod)", RING_POINTS / 10, lambda need: need.pods,
        "a larger `minimum_ring_size` in `envoy/envoy.yaml`",
    ),
    Limit(
        "series of one Prometheus (10 million)", 1e7, lambda need: need.pods * SERIES_A_POD,
        "one Prometheus a shard of pods, rules federated",
    ),
    Limit("nodes of one Kubernetes cluster, a pod each", 5000, lambda need: need.pods, "several installations"),
)  # fmt: skip


def page(day: Day, models: Sequence[Measured], needs: Sequence[Need], sources: tuple[str, str]) -> str:
    """The whole page."""
    return "\n\n".join((_top(sources), _assumed(day), _figures(models), _needs(needs), _breaks(needs), WORDS)) + "\n"


def _top(sources: tuple[str, str]) -> str:
    links = " and ".join(f"[{name}](../benchmarks/results/{name})" for name in sources)
    return (
        "# What many users need\n\n"
        f"Computed by `python -m deploy.scale` from what was measured ({links})\nand from what is assumed below. "
        "Nothing of this size was run: pods were measured one at a time, the store as one server.\n"
        "`python -m deploy.scale --users 5e6 --gpu-hour 2.2 --gib-month 1.5` prints it for numbers of your own."
    )


def _assumed(day: Day) -> str:
    return "## Assumed\n\n" + _table(
        ("what", "value"),
        (
            ("users who come on a day", f"{day.active_share:.0%}"),
            (
                "calls of such a user",
                f"{day.calls:g} a day, {day.prompt_tokens:g} tokens read, {day.answer_tokens:g} written",
            ),
            ("lessons of such a user", f"{day.lessons:g} a day of {day.lesson_tokens:g} tokens"),
            ("the busiest hour over the mean one", f"{day.peak:g} {TIMES}"),
            ("load at which pods and shards are sized", f"{day.load:g}, and one pod to spare"),
            ("calls that find the memory in the pod", f"{day.warm_share:.0%}"),
            ("versions kept", f"{day.versions}"),
            (
                "copies in the store, room for a rewrite of its log",
                f"{day.copies} {TIMES}, {day.log_headroom:g} {TIMES}",
            ),
            ("data of one shard", f"{day.shard_gib:g} GiB"),
            ("price of a card, of memory", f"${day.gpu_hour:g} an hour, ${day.gib_month:g} a GiB and month"),
        ),
    )


def _figures(models: Sequence[Measured]) -> str:
    first = models[0]
    rows: list[tuple[str, ...]] = [
        ("tokens written a second, 256 users", *(f"{of.written:,.0f}" for of in models)),
        ("tokens read a second", *(f"{of.read:,.0f}" for of in models)),
        ("tokens learned a second, 16 users", *(f"{of.learned:,.0f}" for of in models)),
        ("returning users a second", *(f"{of.returns:,.0f}" if of.returns else "not measured" for of in models)),
        ("a memory, as the device holds it", *(f"{of.memory_mib:g} MiB" for of in models)),
    ]
    return (
        "## Measured\n\nOne pod on one H200:\n\n"
        + _table(("", *(of.model for of in models)), rows)
        + f"\n\nOne shard of the store, a server on 2 cores: {first.commits:,.0f} commits a second, synced on two "
        "servers;\n"
        f"{first.restore_mib:,.0f} MiB a second restored by one reader; {first.moved_share:.0%} of a memory written "
        "anew by a lesson of 64 tokens."
    )


def _needs(needs: Sequence[Need]) -> str:
    rows: list[tuple[str, ...]] = [
        ("calls a second", *(f"{need.calls:,.0f}" for need in needs)),
        ("tokens written a second", *(f"{need.written:,.0f}" for need in needs)),
        ("tokens read a second", *(f"{need.read:,.0f}" for need in needs)),
        ("tokens learned a second", *(f"{need.learned:,.0f}" for need in needs)),
        ("seconds of a card a second", *(f"{need.device_seconds:,.2f}" for need in needs)),
        ("**pods**", *(f"**{need.pods:,}**" for need in needs)),
        ("RAM a pod to keep the day's users warm", *(f"{need.warm_gib:,.0f} GiB" for need in needs)),
        ("bytes of a user in the store", *(f"{need.user_mib:.1f} MiB" for need in needs)),
        ("bytes of all, one copy", *(_bytes(need.store_gib) for need in needs)),
        ("shards by bytes", *(f"{need.shards_by_bytes:,}" for need in needs)),
        ("shards by commits", *(f"{need.shards_by_commits:,}" for need in needs)),
        ("shards by restores", *(f"{need.shards_by_restores:,}" for need in needs)),
        ("**shards**, each with a replica", *(f"**{need.shards:,}**" for need in needs)),
        ("cards, a user and month", *(f"${need.gpu_cost:.4f}" for need in needs)),
        ("store, a user and month", *(f"${need.store_cost:.4f}" for need in needs)),
        ("**a user and month**", *(f"**${need.gpu_cost + need.store_cost:.3f}**" for need in needs)),
    ]
    return "## Needed at the peak\n\n" + _table(("", *(_heading(need) for need in needs)), rows)


def _breaks(needs: Sequence[Need]) -> str:
    rows = [
        (limit.name, *(_share(limit, need) for need in needs), limit.remedy)
        for limit in sorted(LIMITS, key=lambda limit: -max(limit.used(need) / limit.most for need in needs))
    ]
    firsts = [
        f"- **{_heading(need)}**: {first.name}, at {first.used(need) / first.most:,.2f} of what there is."
        for need, first in ((need, _first(need)) for need in needs)
    ]
    return (
        "## What breaks first\n\nNeeded over what there is; above 1 it does not fit:\n\n"
        + _table(("", *(_heading(need) for need in needs), "remedy"), rows)
        + "\n\n"
        + "\n".join(firsts)
    )


def _first(need: Need) -> Limit:
    return max(LIMITS, key=lambda limit: limit.used(need) / limit.most)


def _share(limit: Limit, need: Need) -> str:
    share = limit.used(need) / limit.most
    return f"**{share:,.1f}**" if share > 1 else f"{share:.2f}"


def _heading(need: Need) -> str:
    exponent = f"{need.users:.0e}".partition("e+")[2].lstrip("0")
    mantissa = need.users / 10 ** int(exponent)
    return f"{'' if mantissa == 1 else f'{mantissa:g} {TIMES} '}10^{exponent} users, {need.model}"


def _bytes(gib: float) -> str:
    for unit in ("GiB", "TiB"):
        if gib < 1024:
            return f"{gib:,.1f} {unit}"
        gib /= 1024
    return f"{gib:,.1f} PiB"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
