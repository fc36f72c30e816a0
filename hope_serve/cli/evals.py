"""``hope-serve eval SUITE``: what a model and its memories are worth, through a running server's own calls."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hope_serve.cli.bench import numbers
from hope_serve.cli.connected import Server, calls_server, takes
from hope_serve.cli.evaluating import Kept, Run, keep, load_rival, measure, say_whether_drawn
from hope_serve.cli.training import people
from hope_serve.errors import InvalidRequest

if TYPE_CHECKING:
    from hope_serve.evals.suite import Suite

evals = typer.Typer(no_args_is_help=True, help="Measure what a model and its memories are worth.")
evals.command("people")(people)


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
    rival: Annotated[
        Path | None, typer.Option(help="Folder of a Transformer trained beside the model, to be read as well.")
    ] = None,
) -> None:
    """Bits a byte of texts, alone, in context and while learning; loss by position; last words."""
    from hope_serve.evals.language import Language

    reader = load_rival(rival) if rival else None
    _run(Language(scale=run.scale, files=tuple(files or ()), lambada=lambada, rival=reader), server, run)


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

    say_whether_drawn(kept)
    with Bars() as bars:
        report = Mad(scale=kept.scale, seed=kept.seed).run(bars)
    keep(report, kept)


def _run(suite: Suite, server: Server, run: Run) -> None:
    """Measure, print, and keep the report where it was asked for."""
    say_whether_drawn(run)
    if not asyncio.run(_measure(suite, server, run)):
        raise typer.Exit(1)


async def _measure(suite: Suite, server: Server, run: Run) -> bool:
    """Whether all was measured."""
    whole = True
    async with aclosing(measure([suite], server, run)) as reports:
        async for report in reports:
            keep(report, run)
            whole = whole and not report.failures
    return whole
