"""``hope-serve eval`` against a running server: every suite at its smallest, what it leaves, and what it refuses."""

from __future__ import annotations

import json

import pytest

SMALL = ("--scale", "0.01", "--json")


def test_people_gives_every_share(hope, target):
    said = hope("eval", "people", "--target", target, "--users", "2", "--facts", "1", "--noise", "8", "--json")
    assert said.code == 0, said.err
    scores = json.loads(said.out)
    assert scores.keys() == {
        "recall_with_memory",
        "recall_without_memory",
        "recall_of_others_facts",
        "recall_of_first_facts",
        "recall_of_corrected_fact",
    }
    assert all(0 <= share <= 1 for share in scores.values())


def test_recall_has_every_row_and_arm_and_leaves_its_report(hope, target, tmp_path):
    text = tmp_path / "text"
    text.mkdir()
    sentence = "The rain fell on the harbour all day. Nobody spoke of the ship again. She closed the door behind her. "
    for name in ("books_test", "wikitext_test"):
        (text / f"{name}.txt").write_text(sentence * 130)
    cases = tmp_path / "mine.jsonl"
    cases.write_text('{"facts": ["We keep bees."], "question": "What do we keep?", "answers": ["bees"]}\n')
    out = tmp_path / "out"
    said = hope("eval", "recall", "--target", target, *SMALL, "--text", text, "--cases", cases, "--out", out)
    assert said.code == 0, said.err
    report = json.loads(said.out)
    mine, lessons, costs, sizes, language, second = report["tables"]
    assert [line["name"] for line in mine["lines"]] == ["mine: told", "mine: told but refused (low is good)"]
    assert lessons["columns"] == ["memory", "all in the prompt", "BM25 in the prompt", "memory + BM25", "neither"]
    names = [line["name"] for line in lessons["lines"]]
    for wanted in (
        "recall 1", "recall 4", "recall 8", "recall 4, new relations", "recall 1 amid 60 words",
        "recall 1 amid 200 words", "never told, says so", "told, but refused (low is good)", "corrected", "ended",
        "a stranger's facts (low is good)", "two hops", "joined with knowledge", "recall 100", "recall 32 over 8",
    ):  # fmt: skip
        assert wanted in names
    assert sum(name.startswith("oldest of these after") for name in names) == 2
    assert all(cell is None or 0 <= cell <= 1 for line in lessons["lines"] for cell in line["cells"])
    assert len(costs["lines"]) == 6
    assert all(line["cells"][0] > 0 for line in sizes["lines"])
    assert [line["name"] for line in language["lines"]] == ["books_test", "wikitext_test"]
    assert all(line["cells"][1] > 0 and line["cells"][3] > 0 for line in language["lines"])
    assert second["lines"][0]["cells"][0] > -1
    assert {path.suffix for path in out.iterdir()} == {".json", ".md", ".png"}
    assert "eval-" not in hope("memory", "ls", "--target", target).out


def test_a_suite_may_start_a_server_of_its_own_and_ask_only_your_cases(hope, checkpoint_folder, tmp_path):
    cases = tmp_path / "mine.jsonl"
    cases.write_text('{"facts": ["We keep bees."], "question": "What do we keep?", "answers": ["bees"]}\n')
    asked = ("eval", "recall", "--checkpoint", checkpoint_folder, "--cases", cases, "--only-cases")
    said = hope(*asked)
    assert said.code == 0, said.err
    assert "hope-tiny: Cases of the files named" in said.out
    assert "mine: told" in said.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("recall", "--only-cases"), "--only-cases"),
        (("recall", "--cases", "nowhere.jsonl"), "nowhere.jsonl"),
        (("recall", "--text", "nowhere"), "nowhere holds no *_test.txt"),
        (("nothing",), "nothing"),
    ],
)
def test_wrong_use_is_named(hope, target, options, words):
    said = hope("eval", *options, *(("--target", target) if options[0] != "nothing" else ()))
    assert said.code == 2
    assert words in said.out + said.err


def test_a_server_that_does_not_start_says_why(hope, tmp_path):
    said = hope("eval", "recall", "--checkpoint", tmp_path)
    assert said.code == 3
    assert "config.json" in said.err
