"""The page of all suites: reports are kept one by one, and gathered with their plots."""

from __future__ import annotations

import json
import re
import sys

import pytest

from benchmarks import evals
from hope_serve.evals.report import Line, Report, Table
from hope_serve.evals.show import save_report


def report(suite, model, **more):
    table = Table(title="Found", head="share", columns=("memory",), lines=(Line(name="1k", cells=(0.5,)),))
    return Report(suite=suite, model={"name": model} | more, settings={}, tables=(table,))


def test_a_page_links_what_lies_there_names_machines_and_keeps_its_note(tmp_path):
    folder = tmp_path / "evals-mine"
    save_report(report("recall", "Smollm2 135M 8k", hardware="a fast one"), folder)
    save_report(report("recall", "Smollm2"), folder)
    (folder / "recall-Smollm2-of-an-earlier-run.png").write_bytes(b"")
    data = folder / "recall-Smollm2.json"
    data.write_text(re.sub(r'"date": "[^"]+"', '"date": "2020-01-01"', data.read_text()))
    (folder / "NOTE.md").write_text("Taken in a hurry.\n")
    page = evals.write_page(folder, "Mine")
    newest = json.loads((folder / "recall-Smollm2-135M-8k.json").read_text())["date"]
    assert page.name == f"{newest}-evals-mine.md"
    text = page.read_text()
    assert re.match(r"# evals of Mine, [0-9-]+\n\nTaken in a hurry.\n\n## recall, Smollm2", text)
    assert "## recall, Smollm2 135M 8k, " in text and "\n\na fast one\n\n**Found**" in text
    links = re.findall(r"!\[[^]]+\]\(([^) ]+)\)", text)
    assert links == ["evals-mine/recall-Smollm2-135M-8k-found.png", "evals-mine/recall-Smollm2-found.png"]
    assert all((tmp_path / link).exists() for link in links)
    assert evals.write_page(folder, "Mine").read_text() == text


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_a_page_gathers_what_every_suite_found(checkpoint, tmp_path, monkeypatch):
    options = ("--name", "mine", "--checkpoint", str(checkpoint), "--results", str(tmp_path), "--scale", "0.01")

    def run(*more):
        monkeypatch.setattr(sys, "argv", ["evals", *options, *more])
        evals.main()

    run("--suites", "babi")
    run("--suites", "needle", "--lengths", "128")
    (page,) = tmp_path.glob("*-evals-mine.md")
    text = page.read_text()
    assert text.index("## babi, hope-tiny") < text.index("## needle, hope-tiny")
    assert "(evals-mine/needle-hope-tiny-found-by-the-length-of-the-text.png)" in text
    assert (tmp_path / "evals-mine" / "babi-hope-tiny.json").exists()
    with pytest.raises(SystemExit, match="nothing"):
        run("--suites", "nothing")
