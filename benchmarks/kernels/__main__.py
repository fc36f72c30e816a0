"""Runs the chosen figures, each on its own, and keeps what they say."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace

import torch
from triton.errors import TritonError

import benchmarks.kernels as package
from benchmarks.kernels import (
    attention,
    attention_sweep,
    chunk,
    cms,
    cms_checks,
    cms_sweep,
    commit,
    decode,
    decode_sweep,
    few_rows,
    few_rows_sweep,
    mlp,
    mlp_sweep,
    precision,
    sampling,
    served,
)
from benchmarks.kernels.bandwidth import measure_bandwidth
from benchmarks.kernels.bench import TINY, Bench, Mode, Sizes
from benchmarks.kernels.table import Row, show, write

Section = Callable[[Bench], list[Row]]
FIGURES: dict[str, tuple[Section, ...]] = {
    "1": (decode.check_decode, decode.time_decode),
    "2": (commit.check_commit, commit.time_commit),
    "3": (chunk.check_chunk, chunk.time_chunk),
    "4": (mlp.check_mlp, mlp.check_commit, mlp.time_mlp),
    "5": (cms_checks.check_delta, cms.time_decode, cms.time_prefill),
    "6": (cms_checks.check_update, cms.time_sums, cms.time_update),
    "7": (precision.study_precision,),
    "8": (sampling.check_sample, sampling.time_sample),
    "9": (served.check_served, served.time_projected, served.time_norm_and_conv, served.time_prefill),
    "10": (few_rows.check_few_rows, few_rows.time_few_rows),
    "11": (attention.check_attention, attention.time_decode, attention.time_prefill, attention.time_around),
}
SHAPELESS = ("5", "6", "7", "8", "9", "10", "11")  # figures that don't look at every head size
SWEEPS: dict[str, tuple[Section, ...]] = {
    "1": (decode_sweep.sweep_decode,),
    "4": (mlp_sweep.sweep_mlp,),
    "5": (cms_sweep.sweep_decode, cms_sweep.sweep_ragged),
    "6": (cms_sweep.sweep_update,),
    "10": (few_rows_sweep.sweep_sums, few_rows_sweep.sweep_dots),
    "11": (attention_sweep.sweep_decode, attention_sweep.sweep_prefill),
}


def main() -> int:
    """0 when everything ran and every check held; missed targets are for the reader to judge."""
    options = parse()
    bench = make_bench(options)
    torch.set_default_device(bench.device)
    torch.manual_seed(0)
    chosen = options.only.split(",") if options.only else list(FIGURES)
    began = time.perf_counter()
    if bench.measures and not options.cold:
        warm(chosen, options)
    warmed = time.perf_counter() - began
    sections = [measure_bandwidth]
    for figure in chosen:
        sections += FIGURES[figure]
        sections += SWEEPS.get(figure, ()) if options.sweep else ()
    rows = [row for section in sections for row in attempt(section, bench)]
    if bench.mode is Mode.WARM:
        return 0
    seconds = {"compiling": f"{warmed:.0f} s", "measuring": f"{time.perf_counter() - began - warmed:.0f} s"}
    if bench.measures:
        path = write(rows, "h200-kernels" if "H200" in torch.cuda.get_device_name() else "kernels", seconds)
        print(f"{path}.md, {seconds}")
    print("\nmissed:")
    show([row for row in rows if row.met is False])
    return int(any(row.met is False and row.figure in ("check", "failed") for row in rows))


def parse() -> argparse.Namespace:
    """The command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="benchmarks.kernels", description=package.__doc__, formatter_class=formatter)
    parser.add_argument("--only", default="", help=f"figures, with commas between: any of {', '.join(FIGURES)}")
    parser.add_argument("--quick", action="store_true", help="few batches and one head size")
    parser.add_argument("--sweep", action="store_true", help="try the candidates of every block table as well")
    parser.add_argument("--cold", action="store_true", help="don't compile beforehand in processes of their own")
    parser.add_argument("--warm", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes on a CPU, nothing timed, nothing written")
    options = parser.parse_args()
    unknown = sorted(set(filter(None, options.only.split(","))) - set(FIGURES))
    if unknown:
        parser.error(f"--only names {', '.join(unknown)}; the figures are {', '.join(FIGURES)}")
    return options


def make_bench(options: argparse.Namespace) -> Bench:
    """Sizes and mode as the command line asks for."""
    if options.rehearse:
        return Bench(mode=Mode.REHEARSE, sizes=TINY, sweep=options.sweep)
    sizes = Sizes()
    if options.quick:
        sizes = replace(sizes, shapes=sizes.shapes[:1], batches=(64, 256), chunks=sizes.chunks[-1:])
    if options.warm is not None:
        return Bench(mode=Mode.WARM, sizes=replace(sizes, layers=1, shapes=(sizes.shapes[options.warm],)))
    return Bench(mode=Mode.MEASURE, sizes=sizes, sweep=options.sweep)


def warm(chosen: list[str], options: argparse.Namespace) -> None:
    """Every figure and head size in a process of its own, untimed, so that all kernels are compiled side by side."""
    passed = ["--quick"] * options.quick
    command = [sys.executable, "-m", "benchmarks.kernels", *passed]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": os.environ | {"OMP_NUM_THREADS": "1"}}
    shapes = range(len(make_bench(options).sizes.shapes))
    parts = [(figure, shape) for figure in chosen for shape in shapes if not (figure in SHAPELESS and shape)]
    running = [subprocess.Popen([*command, "--only", figure, "--warm", str(shape)], **quiet) for figure, shape in parts]
    for process in running:
        process.wait()


def attempt(section: Section, bench: Bench) -> list[Row]:
    """A section's rows, printed; one that fails leaves a row that says so, and the next one runs."""
    began = time.perf_counter()
    try:
        rows = section(bench)
    except (RuntimeError, ValueError, AssertionError, ImportError, TypeError, TritonError) as error:
        traceback.print_exc()
        rows = [Row("failed", f"{section.__name__}: {type(error).__name__}: {str(error)[:160]}", met=False)]
    show(rows)
    print(f"      {section.__module__}.{section.__name__}: {time.perf_counter() - began:.1f} s", flush=True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return rows


if __name__ == "__main__":
    sys.exit(main())
