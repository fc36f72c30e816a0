"""What many users need, from measured figures: ``python -m deploy.scale`` writes deploy/SCALE.md; ``--check`` compares.

python -m deploy.scale --users 5e6 --gpu-hour 2.2 --gib-month 1.5      prints the same for your own numbers
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.scale_page import page

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "deploy" / "SCALE.md"
RESULTS = ROOT / "benchmarks" / "results"
MIB, GIB = 2**20, 2**30


@dataclass(frozen=True, kw_only=True)
class Day:
    """What people do, and what things cost: assumptions, every one of them."""

    active_share: float = 0.2
    calls: float = 20.0
    prompt_tokens: float = 300.0
    answer_tokens: float = 200.0
    lessons: float = 3.0
    lesson_tokens: float = 256.0
    peak: float = 3.0
    load: float = 0.7
    warm_share: float = 0.8
    versions: int = 3
    copies: int = 2
    log_headroom: float = 2.0
    shard_gib: float = 64.0
    gpu_hour: float = 3.5
    gib_month: float = 4.0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Figures of one model on one card, and of one shard of the store; a second is the unit of time."""

    model: str
    written: float
    read: float
    learned: float
    memory_mib: float
    returns: float | None
    commits: float
    moved_share: float
    restore_mib: float


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one model needs for so many users."""

    users: float
    model: str
    calls: float
    written: float
    read: float
    learned: float
    device_seconds: float
    pods: int
    user_mib: float
    store_gib: float
    shards_by_bytes: int
    shards_by_commits: int
    shards_by_restores: int
    shards: int
    warm_gib: float
    gpu_cost: float
    store_cost: float


def need(users: float, of: Measured, day: Day) -> Need:
    """At the peak: the device's seconds a second, the store's bytes and operations."""
    active = users * day.active_share
    a_second = active * day.peak / 86_400
    calls, lessons = a_second * day.calls, a_second * day.lessons
    written, read, learned = (
        calls * day.answer_tokens,
        calls * day.prompt_tokens,
        lessons * day.lesson_tokens,
    )
    device = written / of.written + read / of.read + learned / of.learned
    returning = calls / of.returns if of.returns else 0.0
    pods = _up(max(device, returning) / day.load) + 1
    user_mib = of.memory_mib * (1 + of.moved_share * (day.versions - 1))
    store_gib = users * user_mib / 1024
    cold_mib = calls * (1 - day.warm_share) * of.memory_mib
    by = (
        _up(store_gib / day.shard_gib),
        _up(lessons / of.commits / day.load),
        _up(cold_mib / of.restore_mib / day.load),
    )
    months = 730 / users
    return Need(
        users=users, model=of.model, calls=calls, written=written, read=read, learned=learned, device_seconds=device,
        pods=pods, user_mib=user_mib, store_gib=store_gib, shards_by_bytes=by[0], shards_by_commits=by[1],
        shards_by_restores=by[2], shards=max(by), warm_gib=active * of.memory_mib / 1024 / pods,
        gpu_cost=pods * day.gpu_hour * months,
        store_cost=store_gib * day.copies * day.log_headroom * day.gib_month / users,
    )  # fmt: skip


def measured(model: str, card: dict[str, float], store: dict[str, float]) -> Measured:
    """The figures that the arithmetic needs. Raises SystemExit for one that was not measured."""
    memory = next((name for name in card if name.startswith(f"{model}, a user into a slot, memory alone")), "")
    size = re.search(r"\(([\d.]+) MiB\)", memory)
    if size is None:
        raise SystemExit(f"no result says how large a memory of {model} is")
    churn = card.get(f"{model}, 64 slots, 1000 users, each request another")
    return Measured(
        model=model,
        written=_figure(card, f"{model}, 256 users, sampled: tokens"),
        read=_figure(card, f"{model}, prefill 8 x 2048"),
        learned=_figure(card, f"{model}, Adapt, 16 users of 4096 tokens"),
        memory_mib=float(size[1]),
        returns=churn / 32 if churn else None,  # of 32 tokens each
        commits=_figure(store, "commits that write 0.5 of 1 MiB, 32 users at once, replicated_fsync"),
        moved_share=_figure(store, "the first over the second"),
        restore_mib=8 / _figure(store, "restore of 8 MiB: p50") * 1e3,
    )


def newest(title: str, results: Path = RESULTS) -> tuple[Path, dict[str, float]]:
    """The newest result of that title, and its figures. Raises SystemExit when there is none."""
    found = [path for path in results.glob("*.md") if path.read_text().startswith(f"# {title}, ")]
    if not found:
        raise SystemExit(f"{results} has no result called {title}")
    path = max(found, key=lambda each: each.name)
    rows = re.findall(r"^\| (.+?) \| ([-\d.,e]+) \|", path.read_text(), re.MULTILINE)
    return path, {name: float(value.replace(",", "")) for name, value in rows}


def generate(sizes: Iterable[float], day: Day) -> str:
    """The page."""
    card_path, card = newest("serving-card")
    store_path, store = newest("store")
    models = [measured(model, card, store) for model in ("340m", "1.3b")]
    needs = [need(users, of, day) for users in sizes for of in models]
    return page(day, models, needs, (card_path.name, store_path.name))


def main() -> int:
    """Write the page, compare it, or print one of other numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare the page")
    parser.add_argument("--users", type=float, help="print the page for so many users instead")
    parser.add_argument("--gpu-hour", type=float, default=Day.gpu_hour, help="dollars: %(default)s")
    parser.add_argument("--gib-month", type=float, default=Day.gib_month, help="dollars: %(default)s")
    options = parser.parse_args()
    day = replace(Day(), gpu_hour=options.gpu_hour, gib_month=options.gib_month)
    if options.users or day != Day():
        print(generate((options.users,) if options.users else (1e6, 1e8), day))
        return 0
    fresh = generate((1e6, 1e8), day)
    if not options.check:
        TARGET.write_text(fresh)
    elif not TARGET.exists() or TARGET.read_text() != fresh:
        print("deploy/SCALE.md is stale; run `python -m deploy.scale`", file=sys.stderr)
        return 1
    return 0


def _figure(figures: dict[str, float], name: str) -> float:
    if name not in figures:
        raise SystemExit(f"the newest result lacks the figure {name!r}")
    return figures[name]


def _up(value: float) -> int:
    return max(1, int(-(-value // 1)))


if __name__ == "__main__":
    sys.exit(main())
