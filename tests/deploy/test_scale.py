"""deploy/SCALE.md is what the newest measurements give, and its arithmetic is arithmetic."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from support.promql import ROOT

from deploy import scale
from deploy.scale import Day, measured, need, newest

CARD = {
    "m, 256 users, sampled: tokens": 1000.0,
    "m, prefill 8 x 2048": 10_000.0,
    "m, Adapt, 16 users of 4096 tokens": 500.0,
    "m, a user into a slot, memory alone (2.0 MiB)": 0.1,
}
STORE = {
    "commits that write 0.5 of 1 MiB, 32 users at once, replicated_fsync": 100.0,
    "the first over the second": 0.5,
    "restore of 8 MiB: p50": 20.0,
}
DAY = Day(active_share=0.5, calls=86.4, prompt_tokens=100, answer_tokens=10, lessons=8.64, lesson_tokens=50, peak=2)


def test_the_page_is_what_the_newest_results_give(monkeypatch):
    monkeypatch.setattr("sys.argv", ["scale", "--check"])
    assert scale.main() == 0


def test_a_stale_page_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["scale", "--check"])
    monkeypatch.setattr(scale, "TARGET", tmp_path / "SCALE.md")
    assert scale.main() == 1
    assert "python -m deploy.scale" in capsys.readouterr().err


def test_the_arithmetic_by_hand():
    """100,000 users, half of whom come: 100 calls and 10 lessons a second at the peak."""
    found = need(100_000, measured("m", CARD, STORE), DAY)
    assert found.calls == pytest.approx(100)
    assert (found.written, found.read, found.learned) == pytest.approx((1000, 10_000, 500))
    assert found.device_seconds == pytest.approx(1 + 1 + 1)
    assert found.pods == 6  # 3 / 0.7, and one to spare
    assert found.user_mib == pytest.approx(2.0 * (1 + 0.5 * 2))
    assert found.store_gib == pytest.approx(100_000 * 4 / 1024)
    assert found.shards_by_bytes == 7
    assert found.shards_by_commits == 1
    assert found.shards_by_restores == 1  # 40 MiB a second of 400
    assert found.store_cost == pytest.approx(found.store_gib * 4 * 4 / 100_000)


def test_fewer_versions_and_fewer_cold_calls_cost_less():
    figures = measured("m", CARD, STORE)
    usual = need(1e8, figures, DAY)
    assert need(1e8, figures, replace(DAY, versions=1)).shards_by_bytes < usual.shards_by_bytes
    assert need(1e8, figures, replace(DAY, warm_share=0.99)).shards_by_restores < usual.shards_by_restores


def test_returning_users_bound_the_pods_where_they_were_measured():
    churn = {"m, 64 slots, 1000 users, each request another": 320.0}  # 10 a second
    assert need(100_000, measured("m", CARD | churn, STORE), DAY).pods == 16


def test_a_figure_that_was_not_measured_is_named():
    with pytest.raises(SystemExit, match="m, prefill 8 x 2048"):
        measured("m", {name: value for name, value in CARD.items() if "prefill" not in name}, STORE)


def test_the_newest_result_of_a_title_counts(tmp_path):
    for day, value in (("2026-01-02", 3), ("2026-01-01", 1)):
        (tmp_path / f"{day}-x.md").write_text(
            f"# store, {day}\n\n| figure | measured |\n|---|---|\n| a | {value},000 |\n"
        )
    (tmp_path / "2026-01-03-x.md").write_text("# other, 2026-01-03\n")
    path, figures = newest("store", tmp_path)
    assert (path.name, figures) == ("2026-01-02-x.md", {"a": 3000.0})


def test_numbers_of_ones_own_are_printed(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["scale", "--users", "5e6", "--gpu-hour", "2.2"])
    assert scale.main() == 0
    printed = capsys.readouterr().out
    assert re.search(r"\| 5 . 10\^6 users, 1\.3b \|", printed)
    assert "$2.2 an hour" in printed


def test_every_result_it_links_is_there():
    links = re.findall(r"\]\(\.\./(benchmarks/results/[^)]+)\)", (ROOT / "deploy" / "SCALE.md").read_text())
    assert len(links) == 2
    assert all((ROOT / link).exists() for link in links)
