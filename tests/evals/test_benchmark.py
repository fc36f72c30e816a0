"""The page of all suites: reports are kept one by one, and gathered with their plots."""

from __future__ import annotations

import sys

import pytest

from benchmarks import evals


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
