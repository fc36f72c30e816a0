"""Runs everything, prints a table and writes a dated file to benchmarks/results.

    python -m benchmarks.store [--quick] [--only operations|pods]

Ratios compare measurements of the same run. Needs no network and no server: it starts its own.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

import uvloop

from benchmarks.report import Figure, write_report
from benchmarks.store.operations import operations
from benchmarks.store.pods import pods

PARTS = ("operations", "pods")


async def measure(parts: tuple[str, ...], *, quick: bool) -> list[Figure]:
    """The parts asked for; ``quick`` with fewer rounds and tokens, to see that they run."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="hope-bench-") as folder:
        if "operations" in parts:
            figures += await operations(Path(folder), quick=quick)
        if "pods" in parts:
            figures += await pods(Path(folder), quick=quick)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and tokens, nothing written")
    parser.add_argument("--only", choices=PARTS, help="one part, nothing written")
    options = parser.parse_args()
    parts = (options.only,) if options.only else PARTS
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as the server runs
        found = runner.run(measure(parts, quick=options.quick))
    write_report("store", found, save=not (options.quick or options.only))
