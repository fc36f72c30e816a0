"""``hope-serve memory evaluate``: how likely texts are with a memory, and without."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from hope_serve.cli.connected import Server, calls_server, connected
from hope_serve.cli.options import AsJson, Timeout, UserId
from hope_serve.config import ConfigError

if TYPE_CHECKING:
    from hope_serve.api import Evaluation


@calls_server
def evaluate(
    user: UserId,
    server: Server,
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to weigh.")] = None,
    file: Annotated[Path | None, typer.Option(help="More of them, one a line.")] = None,
    versions: Annotated[list[int] | None, typer.Option("--version", help="May be repeated. Default: newest.")] = None,
    timeout: Timeout = 120.0,
    as_json: AsJson = False,
) -> None:
    """Weigh texts by the plain model and by versions of a memory: what it learned is likelier with it."""
    probes = [*(texts or []), *_lines(file)]
    with connected(server, timeout) as client:
        evaluations = client.evaluate_memory(user, probes, versions=versions or [])
    if as_json:
        typer.echo(json.dumps([asdict(evaluation) for evaluation in evaluations]))
    else:
        _print(evaluations)


def _lines(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        return [line for line in file.read_text(encoding="utf-8-sig").splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read as UTF-8 text: {error}") from error


def _print(evaluations: tuple[Evaluation, ...]) -> None:
    table = Table("version", "nats/token", "perplexity", "gain", "tokens")
    plain = evaluations[0].nll
    for part in evaluations:
        name = str(part.version) if part.version else "plain model"
        gain = f"{plain - part.nll:+.4f}" if part.version else ""
        table.add_row(name, f"{part.nll:.4f}", f"{math.exp(min(part.nll, 700.0)):.2f}", gain, f"{part.num_tokens:,}")
    Console().print(table)
