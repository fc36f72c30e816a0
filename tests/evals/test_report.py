"""Reports: figures by row and arm, as JSON, as a page, as pictures."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from hope_serve.evals.report import Chart, Line, Report, Table, Unit
from hope_serve.evals.show import print_report, save_report

REPORT = Report(
    suite="needle",
    model={"name": "tiny"},
    settings={"scale": 1.0},
    tables=(
        Table(
            title="Found",
            head="share",
            columns=("memory", "neither"),
            lines=(Line(name="1k", cells=(0.5, None), count=1200),),
            note="Greedy.",
        ),
        Table(title="Cost", head="ms", columns=("a",), lines=(Line(name="x", cells=(1234.5,)),), unit=Unit.NUMBER),
    ),
    charts=(Chart(title="By length", x="tokens", y="%", series={"memory": ((1.0, 2.0), (2.0, 3.0))}, log_x=True),),
    notes=("Two notes.",),
)


def test_a_page_has_every_table_and_note():
    page = REPORT.as_markdown()
    assert "| share | memory | neither | of |\n| --- | --- | --- | --- |\n| 1k | 50.0% | - | 1,200 |" in page
    assert "| x | 1,234 |" in page
    assert page.endswith("Two notes.\n")


def test_a_figure_is_found_by_line_and_column():
    assert REPORT.tables[0].cell("1k", "memory") == 0.5
    with pytest.raises(KeyError, match="2k"):
        REPORT.tables[0].cell("2k", "memory")


def test_json_holds_what_the_report_holds(tmp_path):
    save_report(REPORT, tmp_path)
    kept = json.loads((tmp_path / "needle-tiny.json").read_text())
    assert kept["tables"][0]["lines"][0]["cells"] == [0.5, None]
    assert kept["tables"][1]["unit"] == "number"
    assert kept["charts"][0]["series"] == {"memory": [[1.0, 2.0], [2.0, 3.0]]}
    assert kept["date"].count("-") == 2


def test_shares_and_charts_are_drawn(tmp_path):
    made = save_report(REPORT, tmp_path / "new")
    assert [path.name for path in made] == [
        "needle-tiny.json", "needle-tiny.md", "needle-tiny-found.png", "needle-tiny-by-length.png",
    ]  # fmt: skip
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in made[2:])


def test_names_of_files_hold_nothing_that_a_link_cannot(tmp_path):
    for name in ("Smollm2 135M 8k Lc100K Mix1 Ep2", "org/model (v1.0) [q4]", "моя модель", "../up"):
        report = dataclasses.replace(REPORT, model={"name": name})
        for path in save_report(report, tmp_path):
            assert path.parent == tmp_path
            assert re.fullmatch(r"[A-Za-z0-9._-]+", path.name)
            assert path.exists()
    assert (tmp_path / "needle-Smollm2-135M-8k-Lc100K-Mix1-Ep2.json").exists()
    assert (tmp_path / "needle-unnamed.md").exists()


def test_pictures_of_alike_titles_do_not_overwrite_each_other(tmp_path):
    charts = tuple(dataclasses.replace(REPORT.charts[0], title=title) for title in ("Loss: a", "Loss (a)", "ой"))
    *_, one, other, third = save_report(dataclasses.replace(REPORT, charts=charts), tmp_path)
    names = [path.name for path in (one, other, third)]
    assert names == ["needle-tiny-loss-a.png", "needle-tiny-loss-a-3.png", "needle-tiny-picture.png"]
    assert json.loads((tmp_path / "needle-tiny.json").read_text())["pictures"][1:] == names


def test_the_terminal_shows_all_tables(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    print_report(REPORT)
    said = capsys.readouterr().out
    assert all(part in said for part in ("tiny: Found", "50.0%", "1,200", "Greedy.", "1,234", "Two notes."))
