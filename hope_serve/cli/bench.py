"""``hope-serve bench``: how fast a running server is; or, without one, where a step's time goes."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from hope_serve.cli.connected import Server, calls_server
from hope_serve.cli.options import AsJson, Timeout
from hope_serve.config import load_config
from hope_serve.errors import InvalidRequest

if TYPE_CHECKING:
    from hope_serve.api import ModelInfo
    from hope_serve.cli.load import LoadReport, ReturnReport


@calls_server
def bench(
    server: Server,
    streams: Annotated[str, typer.Option(help="Generations at once, one measurement each.")] = "1,4,16",
    adapted: Annotated[str, typer.Option(help="Tokens learned by a returning user, one measurement each.")] = "1000",
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Length of every prompt.")] = 32,
    max_tokens: Annotated[int, typer.Option(min=2, help="Length of every answer.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Returns to time.")] = 10,
    profile: Annotated[
        Path | None,
        typer.Option(help="Call no server: say where a step of --streams goes, and write a trace here."),
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="With --profile: folder of the model.")] = None,
    device: Annotated[str, typer.Option(help="With --profile: cpu, cuda, ...; auto is cuda if there is one.")] = "auto",
    timeout: Timeout = 600.0,
    as_json: AsJson = False,
) -> None:
    """Time streams side by side, and the first token of users who return; all through the server's own RPCs.

    With --profile, no server is called: the engine decodes in this process, and a table says where a step's time goes,
    against the time in which the bytes of each part could be read. The trace opens in chrome://tracing or Perfetto.
    """
    counts, lessons = numbers("streams", streams), numbers("adapted", adapted)
    if profile:
        from hope_serve.cli.profile import profile_steps

        profile_steps(counts, profile, load_config(None, {"model.checkpoint": checkpoint}), device, as_json=as_json)
        return
    model, loads, returns = asyncio.run(
        _measure(server, counts, lessons, seconds=timeout, shape=(prompt_tokens, max_tokens), rounds=rounds)
    )
    if as_json:
        typer.echo(json.dumps(_as_json(model, loads, returns)))
    else:
        _print(model, loads, returns)


async def _measure(
    server: Server, streams: list[int], adapted: list[int], *, shape: tuple[int, int], rounds: int, seconds: float
) -> tuple[ModelInfo, list[LoadReport], list[ReturnReport]]:
    from hope_serve.cli.load import Load
    from hope_serve.client import AsyncHopeClient

    async with AsyncHopeClient(server.target, server.options(seconds)) as client:
        model = await client.get_model()
        load = Load(client, vocab_size=model.vocab_size, prompt_tokens=shape[0], max_tokens=shape[1])
        await load.together(max(streams))  # the first steps of every batch size are slower; they are not the question
        loads = [await load.together(count) for count in streams]
        users = [await load.taught(tokens, model.max_adapt_tokens) for tokens in adapted]
        returns = await load.returning(users, rounds)
    return model, loads, returns


def numbers(name: str, text: str) -> list[int]:
    """An option that is a list. Raises InvalidRequest."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and 0 < int(part) <= 10**6 for part in parts):
        raise InvalidRequest(f"--{name}", f"{text!r} is not a list of numbers in [1, 1000000]; write 1,4,16")
    return [int(part) for part in parts]


def _as_json(model: ModelInfo, loads: list[LoadReport], returns: list[ReturnReport]) -> dict[str, Any]:
    return {
        "model": asdict(model),
        "streams": [asdict(load) for load in loads],
        "returning": [asdict(back) for back in returns],
    }


def _print(model: ModelInfo, loads: list[LoadReport], returns: list[ReturnReport]) -> None:
    console = Console()
    title = f"{model.name} on {model.device}{', deterministic' if model.deterministic else ''}"
    table = Table("streams", "tokens/s", "first token ms", "between tokens ms", title=title, caption="p50 / p90 / p99")
    for load in loads:
        row = (f"{load.tokens_per_second:.1f}", _joined(load.first_token_ms), _joined(load.between_tokens_ms))
        table.add_row(str(load.streams), *row)
    console.print(table)
    table = Table("tokens learned", "memory bytes", "first token ms", title="a user returns from the store")
    for back in returns:
        table.add_row(f"{back.adapted_tokens:,}", f"{back.memory_bytes:,}", _joined(back.first_token_ms))
    console.print(table)


def _joined(times: dict[str, float]) -> str:
    return " / ".join(f"{time:.1f}" for time in times.values())
