"""How suites are run from a command: their server, the source's beside it, and where their reports go."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from hope_serve.cli.connected import Server
from hope_serve.cli.server_process import ServerProcess
from hope_serve.errors import InvalidRequest, Unavailable

if TYPE_CHECKING:
    from hope_serve.evals.progress import Bars
    from hope_serve.evals.reading import Rival
    from hope_serve.evals.report import Report
    from hope_serve.evals.subject import Subject
    from hope_serve.evals.suite import Suite


@dataclass(frozen=True, kw_only=True)
class Kept:
    """How large a suite is, and where its report goes. The fields are options of every suite."""

    scale: Annotated[float, typer.Option(help="Of the numbers of people, questions and tokens.", min=0.001)] = 1.0
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 7
    out: Annotated[Path | None, typer.Option(help="Folder for the report as JSON, Markdown and plots.")] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False


@dataclass(frozen=True, kw_only=True)
class Run(Kept):
    """What is asked, and how. The fields are options of every suite that asks a server."""

    checkpoint: Annotated[str, typer.Option(help="Start a server of its own on this model, instead of --target.")] = ""
    part: Annotated[str, typer.Option(help="The memory part of that server's model.")] = ""
    config: Annotated[str, typer.Option(help="The TOML file of the servers that are started.")] = ""
    source_target: Annotated[str, typer.Option(help="A server of the source model, to be asked beside it.")] = ""
    source_checkpoint: Annotated[str, typer.Option(help="Start a server of its own on the source model.")] = ""
    concurrency: Annotated[int, typer.Option(help="Calls under way at a time.", min=1, max=1024)] = 16
    timeout: Annotated[float, typer.Option(help="Seconds to wait for one answer.", min=0.001, max=86_400.0)] = 600.0


async def measure(suites: Sequence[Suite], server: Server, run: Run) -> AsyncGenerator[Report, None]:
    """The suites' reports, as they come; servers that are started here end with the last."""
    from hope_serve.evals.progress import Bars

    async with AsyncExitStack() as stack:
        own = stack.enter_context(_served(run.checkpoint, server, run, part=run.part))
        beside = replace(server, target=run.source_target) if run.source_target else None
        source = stack.enter_context(_served(run.source_checkpoint, beside, run))
        bars = stack.enter_context(Bars())
        for suite in suites:
            async with AsyncExitStack() as asked:
                assert own is not None
                subject = await asked.enter_async_context(_subject(own, run, bars))
                other = await asked.enter_async_context(_subject(source, run, bars)) if source else None
                report = await suite.run(subject, other)
                if report.is_empty and report.failures:
                    raise next(error for one in (subject, other) if one for _, error in one.errors)
                yield report


def load_rival(folder: Path) -> Rival:
    """A Transformer that was trained beside the model. Raises InvalidRequest."""
    from hope_serve.training.rival_reader import RivalReader

    try:
        return RivalReader.load(folder)
    except ValueError as error:
        raise InvalidRequest("--rival", str(error)) from error


def say_whether_drawn(kept: Kept) -> None:
    """Before an hour is spent."""
    from hope_serve.evals.plots import NO_PLOTS, can_draw

    if kept.out is not None and not can_draw():
        Console(stderr=True).print(NO_PLOTS, markup=False, soft_wrap=True)


def keep(report: Report, kept: Kept) -> None:
    """Print it, and write it where it was asked for."""
    from hope_serve.evals.show import print_report, save_report

    if kept.out is not None:
        for path in save_report(report, kept.out):
            Console(stderr=True).print(f"written: {path}", markup=False, soft_wrap=True)
    if kept.as_json:
        typer.echo(json.dumps(report.as_json(), default=str))
    else:
        print_report(report)


@asynccontextmanager
async def _subject(server: Server, run: Run, bars: Bars) -> AsyncIterator[Subject]:
    """A server to ask, which in the end knows nobody of the evaluation any more."""
    from hope_serve.client import AsyncHopeClient
    from hope_serve.evals.subject import Subject

    async with AsyncHopeClient(server.target, server.options(run.timeout)) as client:
        subject = Subject(client, await client.get_model(), bars, concurrency=run.concurrency)
        try:
            yield subject
        finally:
            await subject.forget()


@contextmanager
def _served(checkpoint: str, otherwise: Server | None, run: Run, *, part: str = "") -> Iterator[Server | None]:
    """A server of its own on ``checkpoint``, with a store that ends with it; else the one that runs already."""
    if not checkpoint:
        yield otherwise
        return
    with tempfile.TemporaryDirectory(prefix="hope-eval-") as home:
        memory = f"sqlite://{home}/memory.db"
        options = {"checkpoint": checkpoint, "part": part, "config": run.config, "memory": memory}
        given = {name: value for name, value in options.items() if value}
        with _started(Path(home) / "log", given) as process:
            yield Server(target=process.target)


def _started(log: Path, options: dict[str, str]) -> ServerProcess:
    """Its log stays out of the way of the progress bars, unless it does not start."""
    try:
        return ServerProcess(log=log, **options)
    except Unavailable:
        typer.echo(log.read_text(encoding="utf-8", errors="replace"), err=True)
        raise
