"""Every suite of ``hope-serve eval`` on one model, and the page of what they found.

    python -m benchmarks.evals --name hope-smollm2 --checkpoint hope-smollm2 --part memory.safetensors
        --source-checkpoint hope-smollm2 --text text/ --intents clinc150.json --cases strangers.jsonl --scale 0.5

Each report is written as soon as it is there (JSON, Markdown, plots, into ``results/evals-<name>``), and the page is
made of all that lie there, so that a long run may be taken in pieces with ``--suites``. What ``NOTE.md`` in that folder
says stands on the page first. ``--text`` is a folder with ``books_test.txt`` and ``wikitext_test.txt``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, hardware
from hope_serve.cli.connected import Server
from hope_serve.cli.evaluating import Run, keep, load_rival, measure
from hope_serve.evals.babi import Babi
from hope_serve.evals.continual import Continual
from hope_serve.evals.language import Language
from hope_serve.evals.mad import Mad
from hope_serve.evals.needle import LENGTHS, Needle
from hope_serve.evals.progress import Bars
from hope_serve.evals.recall import Recall
from hope_serve.evals.report import Report
from hope_serve.evals.show import file_name
from hope_serve.evals.suite import Suite

TEXTS = ("books_test.txt", "wikitext_test.txt")
NOTE = "NOTE.md"


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="the model; a server is started on it")
    parser.add_argument("--part", default="", help="its memory part")
    parser.add_argument("--source-checkpoint", default="", help="the source model, asked beside it")
    parser.add_argument("--config", default="", help="TOML file of the servers")
    parser.add_argument("--suites", default=",".join(MAKERS), help="some of %(default)s")
    parser.add_argument("--text", type=Path, help="folder with *_test.txt")
    parser.add_argument("--intents", type=Path, help="file in CLINC150's form")
    parser.add_argument("--cases", type=Path, action="append", default=[], help="cases of strangers, JSON lines")
    parser.add_argument("--lambada", type=Path, help="passages whose last word is asked for")
    parser.add_argument("--rival", type=Path, help="folder of a Transformer trained beside the model")
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)), help="of needle: %(default)s")
    parser.add_argument("--wording", default="lessons", help="of needle: lessons or people")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--name", required=True, help="of the model, in the page's name")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


def main() -> None:
    """Run, keep, and write the page."""
    given = parse()
    folder = given.results / f"evals-{file_name(given.name)}"
    run = Run(
        scale=given.scale,
        out=folder,
        checkpoint=given.checkpoint,
        part=given.part,
        config=given.config,
        source_checkpoint=given.source_checkpoint,
        concurrency=given.concurrency,
    )
    names = [name for name in given.suites.split(",") if name]
    if unknown := set(names) - {*MAKERS, "mad"}:
        raise SystemExit(f"--suites names {', '.join(sorted(unknown))}; choose from {', '.join(MAKERS)}, mad")
    if suites := [made for name in names if name in MAKERS and (made := MAKERS[name](given))]:
        asyncio.run(_measure(suites, run))
    if "mad" in names:
        with Bars() as bars:
            keep(_taken_here(Mad(scale=given.scale).run(bars)), run)
    print(f"written: {write_page(folder, given.name)}")


def write_page(folder: Path, name: str) -> Path:
    """``<date>-<folder>.md``: the folder's note, and every report with its machine and its plots.

    The date is that of the newest report, so that a page which is written again takes its own place.
    """
    note, kept = folder / NOTE, {data: json.loads(data.read_text("utf-8")) for data in sorted(folder.glob("*.json"))}
    if not kept:
        raise SystemExit(f"{folder} holds no report yet; name --suites, and the texts that they need")
    date = max(report["date"] for report in kept.values())
    parts = [note.read_text("utf-8")] if note.exists() else []
    parts += [_part(data, report) for data, report in kept.items()]
    page = folder.parent / f"{date}-{folder.name}.md"
    page.write_text(f"# evals of {name}, {date}\n\n" + "\n".join(parts), "utf-8")
    return page


def _part(data: Path, kept: dict[str, Any]) -> str:
    """One report, a level deeper, with its machine below the heading."""
    head, _, tables = data.with_suffix(".md").read_text("utf-8").partition("\n\n")
    machine = kept["model"].get("hardware", "")
    shown = "\n".join(f"![{Path(name).stem}]({data.parent.name}/{name})" for name in kept.get("pictures", ()))
    return "\n\n".join(part for part in (f"#{head}", machine, f"{tables}\n{shown}".rstrip()) if part) + "\n"


async def _measure(suites: list[Suite], run: Run) -> None:
    async with aclosing(measure(suites, Server(), run)) as reports:
        async for report in reports:
            keep(_taken_here(report), run)


def _taken_here(report: Report) -> Report:
    """With the machine's name: the next suite may be taken on another."""
    return replace(report, model={**report.model, "hardware": hardware()})


def _language(given: argparse.Namespace) -> Suite | None:
    files = tuple(path for name in TEXTS if given.text and (path := given.text / name).exists())
    if not files and given.lambada is None:
        return None
    rival = load_rival(given.rival) if given.rival else None
    return Language(files=files, lambada=given.lambada, scale=given.scale, rival=rival)


def _needle(given: argparse.Namespace) -> Suite:
    lengths = tuple(int(length) for length in given.lengths.split(","))
    return Needle(scale=given.scale, lengths=lengths, text=given.text, wording=given.wording)


MAKERS: dict[str, Callable[[argparse.Namespace], Suite | None]] = {
    "recall": lambda given: Recall(scale=given.scale, text=given.text, cases=tuple(given.cases)),
    "needle": _needle,
    "babi": lambda given: Babi(scale=given.scale),
    "continual": lambda given: Continual(scale=given.scale, file=given.intents),
    "language": _language,
}


if __name__ == "__main__":
    main()
