"""``hope-serve bench --profile``: where a decode step's time goes, in this process."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from hope_serve.config import Config, ConfigError
from hope_serve.engine.profiling import StepProfile, profile_decode
from hope_serve.server.devices import chosen_device
from hope_serve.server.loading import loaded


def profile_steps(counts: list[int], trace: Path, config: Config, device: str, *, as_json: bool) -> None:
    """Profile a step of every number of sequences; traces of several carry it in their names.

    Raises:
        ConfigError: the trace cannot be written there, or there is no such device.
    """
    if not trace.absolute().parent.is_dir():
        raise ConfigError(f"--profile {trace} lies in no folder that exists; make it first")
    checkpoint, device = loaded(config.model), chosen_device(device)
    found = []
    for count in counts:
        own = trace if len(counts) == 1 else trace.with_stem(f"{trace.stem}-{count}")
        found.append(profile_decode(checkpoint, config.engine, device, count, trace=own))
    if as_json:
        typer.echo(json.dumps({"model": checkpoint.config.name, "device": device, "steps": [asdict(p) for p in found]}))
        return
    for one in found:
        Console().print(_table(one, f"{checkpoint.config.name} on {device}"))


def _table(step: StepProfile, where: str) -> Table:
    table = Table("part", "calls", "ms", "share", "floor ms", "over the floor", title=f"{where}: {_summary(step)}")
    table.caption = f"floors at {step.bandwidth / 1e9:.1f} GB/s, read in this run"
    for part in step.parts:
        over = f"{part.ms / part.floor_ms:.1f}" if part.floor_ms else ""
        floor = f"{part.floor_ms:.3f}" if part.floor_ms else ""
        table.add_row(part.name, f"{part.calls:.0f}", f"{part.ms:.3f}", f"{part.ms / step.ms:.0%}", floor, over)
    table.add_row("together", "", f"{step.ms:.3f}", "", f"{step.floor_ms:.3f}", f"{step.ms / step.floor_ms:.1f}")
    return table


def _summary(step: StepProfile) -> str:
    return f"{step.sequences} sequences, {step.ms:.2f} ms a step, {step.sequences / step.ms * 1e3:,.0f} tokens/s"
