"""``hope-serve train`` and ``hope-serve eval people``."""

from __future__ import annotations

import asyncio
import json
import tomllib
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from hope_serve.api import check_range
from hope_serve.cli.connected import Server, calls_server
from hope_serve.cli.options import AsJson, Timeout
from hope_serve.config import ConfigError


def train(config: Annotated[Path, typer.Argument(help="The TOML file of the run.")]) -> None:
    """Meta-train a checkpoint, or (``base``) a memory part; an interrupted run goes on where it was saved."""
    try:
        made = _train_part(config) if "base" in tomllib.loads(config.read_text("utf-8")) else _train_whole(config)
    except (ValueError, OSError) as error:
        raise ConfigError(f"{config}: {error}") from error
    typer.echo(made)


def _train_whole(config: Path) -> str:
    from hope_serve.training.train import run

    return f"checkpoint written to {run(config)}"


def _train_part(config: Path) -> str:
    from hope_serve.training.parts.options import from_toml
    from hope_serve.training.parts.train import run
    from hope_serve.training.run_log import RunLog

    part = run(from_toml(config))
    return f"memory part written to {part}, its losses drawn in {RunLog(part.parent).plot()}"


@calls_server
def people(
    server: Server,
    users: Annotated[int, typer.Option(min=2, help="People to teach, held out from training.")] = 200,
    facts: Annotated[int, typer.Option(min=1, help="Facts each.")] = 8,
    noise: Annotated[int, typer.Option(min=1, help="Tokens of unrelated text after each lesson.")] = 500,
    seed: Annotated[int, typer.Option(help="Of the people and the order.")] = 0,
    timeout: Timeout = 600.0,
    as_json: AsJson = False,
) -> None:
    """Invented people in the wording that hope-demo learned: recall, retention, correction, privacy."""
    from hope_serve.training.personas import load_attributes

    check_range("--facts", facts, 1, len(load_attributes()))
    scores = asyncio.run(_study(server, users, facts, noise, seed=seed, seconds=timeout))
    if as_json:
        typer.echo(json.dumps(scores))
        return
    table = Table("score", "share", title=f"{users} people, {facts} facts each")
    for name, share in scores.items():
        table.add_row(name, f"{share:.1%}")
    Console().print(table)


async def _study(server: Server, users: int, facts: int, noise: int, *, seed: int, seconds: float) -> dict[str, float]:
    from hope_serve.client import AsyncHopeClient
    from hope_serve.training.personas import PersonaFactory, Split
    from hope_serve.training.study import Study

    async with AsyncHopeClient(server.target, server.options(seconds)) as client:
        study = Study(client, PersonaFactory(Split.HELD_OUT, seed=seed), seed=seed)
        return await study.recall(users, facts) | await study.retention(users, noise=noise)
