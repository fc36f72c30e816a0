"""``hope-serve eval SUITE``: what a model and its memories are worth, through a running server's own calls."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from hope_serve.cli.bench import numbers
from hope_serve.cli.connected import Server, calls_server, takes
from hope_serve.cli.server_process import ServerProcess
from hope_serve.cli.training import people
from hope_serve.errors import InvalidRequest, Unavailable

if TYPE_CHECKING:
    from hope_serve.evals.progress import Bars
    from hope_serve.evals.report import Report
    from hope_serve.evals.subject import Subject
    from hope_serve.evals.suite import Suite

evals = typer.Typer(no_args_is_help=True, help="Measure what a model and its memories are worth.")
evals.command("people")(people)


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
    source_target: Annotated[str, typer.Option(help="A server of the source model, to be asked beside it.")] = ""
    source_checkpoint: Annotated[str, typer.Option(help="Start a server of its own on the source model.")] = ""
    concurrency: Annotated[int, typer.Option(help="Calls under way at a time.", min=1, max=1024)] = 16
    timeout: Annotated[float, typer.Option(help="Seconds to wait for one answer.", min=0.001, max=86_400.0)] = 600.0


@evals.command()
@calls_server
@takes("run", Run)
def recall(
    server: Server,
    run: Run,
    text: Annotated[Path | None, typer.Option(help="Folder with *_test.txt: prose around facts, bits a byte.")] = None,
    cases: Annotated[list[Path] | None, typer.Option(help="Cases of your own, JSON lines. May be repeated.")] = None,
    only_cases: Annotated[bool, typer.Option("--only-cases", help="Nothing but these.")] = False,
) -> None:
    """What is remembered of what was told; memory, prompt, BM25, both and neither side by side."""
    from hope_serve.evals.recall import Recall

    if only_cases and not cases:
        raise InvalidRequest("--only-cases", "no file of cases is named; name one with --cases")
    _run(
        Recall(scale=run.scale, seed=run.seed, text=text, cases=tuple(cases or ()), only_cases=only_cases), server, run
    )


@evals.command()
@calls_server
@takes("run", Run)
def language(
    server: Server,
    run: Run,
    files: Annotated[list[Path] | None, typer.Argument(help="Texts to read.")] = None,
    lambada: Annotated[
        Path | None, typer.Option(help="Passages whose last word is asked for: lines, or JSON lines with text.")
    ] = None,
) -> None:
    """Bits a byte of texts, alone, in context and while learning; loss by position; last words."""
    from hope_serve.evals.language import Language

    _run(Language(scale=run.scale, files=tuple(files or ()), lambada=lambada), server, run)


@evals.command()
@calls_server
@takes("run", Run)
def needle(
    server: Server,
    run: Run,
    lengths: Annotated[str, typer.Option(help="Tokens of the text.")] = "1024,2048,4096,8192,16384,32768,65536",
    text: Annotated[Path | None, typer.Option(help="Folder with *_test.txt to hide the facts in.")] = None,
    wording: Annotated[str, typer.Option(help="Whose facts: of the lessons, or of hope-demo's people.")] = "lessons",
) -> None:
    """One fact in a long text, 1k to 64k tokens: learned, in the context, or searched."""
    from hope_serve.evals.needle import Needle

    sizes = tuple(numbers("lengths", lengths))
    _run(Needle(scale=run.scale, seed=run.seed, lengths=sizes, text=text, wording=wording), server, run)


@evals.command()
@calls_server
@takes("run", Run)
def babi(server: Server, run: Run) -> None:
    """Small stories with a question each, in five kinds."""
    from hope_serve.evals.babi import Babi

    _run(Babi(scale=run.scale, seed=run.seed), server, run)


@evals.command()
@calls_server
@takes("run", Run)
def continual(
    server: Server,
    run: Run,
    file: Annotated[Path | None, typer.Option(help="Intents in CLINC150's form, in 5 and in 10 steps.")] = None,
    digits: Annotated[bool, typer.Option(help="Split and permuted digits.")] = True,
) -> None:
    """Classes that come step after step: right after each, and forgotten."""
    from hope_serve.evals.continual import Continual

    _run(Continual(scale=run.scale, seed=run.seed, file=file, digits=digits), server, run)


@evals.command()
@takes("kept", Kept)
def mad(kept: Kept) -> None:
    """Recall, copying and compression by training two layers; HOPE beside a Transformer and a gated delta net."""
    from hope_serve.evals.mad import Mad
    from hope_serve.evals.progress import Bars

    _say_whether_drawn(kept)
    with Bars() as bars:
        report = Mad(scale=kept.scale, seed=kept.seed).run(bars)
    _keep(report, kept)


def _run(suite: Suite, server: Server, run: Run) -> None:
    """Measure, print, and keep the report where it was asked for."""
    _say_whether_drawn(run)
    with _served(run.checkpoint, server) as own, _served(run.source_checkpoint, _other(server, run)) as source:
        assert own is not None
        report = asyncio.run(_measure(suite, own, source, run))
    _keep(report, run)


def _say_whether_drawn(kept: Kept) -> None:
    """Before an hour is spent."""
    from hope_serve.evals.plots import NO_PLOTS, can_draw

    if kept.out is not None and not can_draw():
        Console(stderr=True).print(NO_PLOTS, markup=False, soft_wrap=True)


def _keep(report: Report, kept: Kept) -> None:
    from hope_serve.evals.show import print_report, save_report

    if kept.out is not None:
        for path in save_report(report, kept.out):
            Console(stderr=True).print(f"written: {path}", markup=False, soft_wrap=True)
    if kept.as_json:
        typer.echo(json.dumps(report.as_json(), default=str))
    else:
        print_report(report)


async def _measure(suite: Suite, own: Server, source: Server | None, run: Run) -> Report:
    from hope_serve.evals.progress import Bars

    async with AsyncExitStack() as stack:
        bars = stack.enter_context(Bars())
        subject = await stack.enter_async_context(_subject(own, run, bars))
        other = await stack.enter_async_context(_subject(source, run, bars)) if source else None
        return await suite.run(subject, other)


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
def _served(checkpoint: str, otherwise: Server | None) -> Iterator[Server | None]:
    """A server of its own on ``checkpoint``, with a store that ends with it; else the one that runs already."""
    if not checkpoint:
        yield otherwise
        return
    with tempfile.TemporaryDirectory(prefix="hope-eval-") as home, _started(checkpoint, Path(home)) as process:
        yield Server(target=process.target)


def _started(checkpoint: str, home: Path) -> ServerProcess:
    """Its log stays out of the way of the progress bars, unless it does not start."""
    log = home / "log"
    try:
        return ServerProcess(log=log, checkpoint=checkpoint, memory=f"sqlite://{home}/memory.db")
    except Unavailable:
        typer.echo(log.read_text(encoding="utf-8", errors="replace"), err=True)
        raise


def _other(server: Server, run: Run) -> Server | None:
    return replace(server, target=run.source_target) if run.source_target else None
