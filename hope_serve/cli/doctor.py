"""``hope-serve doctor``: what this machine has and what would be served, before anything is loaded."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import unquote

import typer
from rich.console import Console
from rich.table import Table

from hope_serve.config import Config, ConfigError, MemoryConfig, load_config, memory_key_secret
from hope_serve.errors import HopeError
from hope_serve.memory.url_parts import split_url

if TYPE_CHECKING:
    from hope_serve.cli.plan import MemoryPlan

STORE_SECONDS = 3.0
PROCESS_BYTES = 512 * 2**20
"""Libraries, and what one step computes with, in RAM."""
MESSAGE_FACTOR = 500
"""Bytes of RAM to a byte of the longest message: one is tokenised at a time, and eight are under way at most."""
PACKAGES = ("torch", "triton", "grpcio", "protobuf", "tokenizers", "redis")


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what was found, and whether a server could start with it."""

    subject: str
    found: str
    good: bool = True


def doctor(
    config: Annotated[
        Path | None, typer.Option(help="The TOML file. Default: HOPE_CONFIG, or built-in values.")
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Folder of the model.")] = None,
    memory: Annotated[str | None, typer.Option(help="Where memories rest.")] = None,
) -> None:
    """Say what this machine has, and whether the configured server could start; exits with 1 when it could not."""
    settings = load_config(config, {"model.checkpoint": checkpoint, "memory.url": memory})
    table = Table("", "", "", show_header=False)
    failed = False
    for finding in _findings(settings):
        table.add_row("ok" if finding.good else "[red]bad", finding.subject, finding.found)
        failed = failed or not finding.good
    Console().print(table)
    if failed:
        raise typer.Exit(1)


def _findings(config: Config) -> Iterator[Finding]:
    yield Finding("machine", f"{platform.machine()}, {os.cpu_count()} CPUs, {_sized(_ram_bytes())} RAM")
    yield from _packages()
    yield _accelerators()
    yield from _checkpoint(config)
    yield _store(config)


def _packages() -> Iterator[Finding]:
    found = {name: _version(name) for name in PACKAGES}
    yield Finding("packages", ", ".join(f"{name} {version}" for name, version in found.items() if version))
    if missing := [name for name, version in found.items() if not version]:
        yield Finding("not installed", ", ".join(missing), good=missing == ["triton"])


def _accelerators() -> Finding:
    import torch

    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    names = [f"{device.name} ({_sized(device.total_memory)})" for device in devices]
    return Finding("CUDA devices", ", ".join(names) or "none; the server runs on the CPU")


def _checkpoint(config: Config) -> Iterator[Finding]:
    from hope_serve.cli.plan import memory_plan
    from hope_serve.convert.fetch import FetchError
    from hope_serve.convert.named import bundled_part, checkpoint_folder
    from hope_serve.model.checkpoint import CheckpointError
    from hope_serve.model.load import load_model

    named = config.model.checkpoint
    try:
        folder, part = checkpoint_folder(named, may_fetch=False), config.model.part
        part = part or bundled_part(named)
        device = _device(config)
        plan = memory_plan(folder, part=part, engine=config.engine, device=device)
        planned = list(_planned(plan, config, device))
        yield from planned
        if all(finding.good for finding in planned):  # only now is it known that the weights fit
            load_model(folder, part)
            size = f"{plan.num_parameters:,} parameters"
            yield Finding("checkpoint", f"{plan.name} in {folder}: {size}, every sum, name, shape and value checked")
    except (CheckpointError, ConfigError, FetchError) as error:
        yield Finding("checkpoint", str(error), good=False)


def _planned(plan: MemoryPlan, config: Config, device: str) -> Iterator[Finding]:
    engine, warm = config.engine, config.engine.max_warm_bytes
    process = PROCESS_BYTES + MESSAGE_FACTOR * config.server.max_message_bytes
    on_cpu = plan.device.total(engine, "cpu")
    said, wrong = plan.device.said(engine, device), plan.device.shortfall(engine, device, _free_bytes(device))
    yield Finding(
        f"on {device}",
        wrong or said + (f"; a slot has a context of {plan.context_tokens:,} tokens" if plan.context_tokens else ""),
        good=not wrong,
    )
    yield Finding(
        "memory plan",
        f"warm memories take up to {_sized(warm)} more RAM, the process and its messages {_sized(process)}: "
        f"without a GPU expect up to {_sized(on_cpu + warm + process)}; "
        f"one user's memory is {_sized(plan.memory_bytes)}, stored",
        good=(on_cpu if device == "cpu" else 0) + warm + process < _ram_bytes(),
    )


def _device(config: Config) -> str:
    from hope_serve.server.devices import chosen_device

    return chosen_device(config.model.device)


def _free_bytes(device: str) -> int:
    import torch

    return torch.cuda.mem_get_info(device)[0] if device != "cpu" else _ram_bytes()


def _store(config: Config) -> Finding:
    parts = split_url(config.memory.url)
    path = Path(unquote(parts.path))
    if parts.scheme == "sqlite" and not (parts.authority or parts.path.endswith("/") or path.exists()):
        return _new_database(path)
    try:
        asyncio.run(_open_and_close(config.memory))
    except (HopeError, ConfigError) as error:
        return Finding("memory store", str(error), good=False)
    if parts.scheme == "sqlite":
        return Finding("memory store", f"{path} opens, {_sized(shutil.disk_usage(path).free)} free")
    return Finding("memory store", f"{parts.hosts} answers")


def _new_database(path: Path) -> Finding:
    """Only looked at: opening it would create it."""
    home = next(folder for folder in path.parents if folder.exists())
    if not home.is_dir():
        return Finding("memory store", f"{path} cannot be made: {home} is not a folder", good=False)
    if not os.access(home, os.W_OK):
        return Finding("memory store", f"{path} cannot be made: {home} is not writable", good=False)
    return Finding("memory store", f"{path} will be made, {_sized(shutil.disk_usage(home).free)} free")


async def _open_and_close(config: MemoryConfig) -> None:
    from hope_serve.errors import Unavailable
    from hope_serve.server.stores import opened_store

    try:
        async with asyncio.timeout(STORE_SECONDS), opened_store(config, secret=memory_key_secret()):
            return
    except TimeoutError as error:
        raise Unavailable(
            f"{split_url(config.url).hosts} did not answer, or was still loading its data, within {STORE_SECONDS:g} s"
        ) from error


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _ram_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _sized(num_bytes: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes} B"
