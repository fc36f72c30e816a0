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


@pytest.mark.nightly
@pytest.mark.timeout(600)
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
        (("needle", "--lengths", "1"), "--lengths"),
        (("needle", "--lengths", "many"), "--lengths"),
        (("needle", "--wording", "mine"), "--wording"),
        (("continual", "--no-digits"), "--file"),
        (("continual", "--file", "nowhere.json"), "nowhere.json"),
        (("language",), "files"),
        (("language", "nowhere.txt"), "nowhere.txt"),
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


def tables(said):
    assert said.code == 0, said.err
    return {table["title"]: table for table in json.loads(said.out)["tables"]}


def cells(table):
    return {line["name"]: dict(zip(table["columns"], line["cells"], strict=True)) for line in table["lines"]}


def test_needle_hides_a_fact_in_every_length(hope, target):
    said = hope("eval", "needle", "--target", target, *SMALL, "--lengths", "256,512", "--wording", "people")
    (table,) = tables(said).values()
    found = cells(table)
    assert list(found) == ["256 tokens", "512 tokens"]
    for shares in found.values():
        assert list(shares) == ["memory", "all in the prompt", "BM25 in the prompt", "neither"]
        assert all(0 <= share <= 1 for share in shares.values())


def test_babi_tells_five_kinds_of_stories(hope, target):
    (table,) = tables(hope("eval", "babi", "--target", target, *SMALL)).values()
    assert [name[0] for name in cells(table)] == ["1", "2", "3", "4", "5"]
    assert {line["count"] for line in table["lines"]} == {2}


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_continual_learns_class_after_class(hope, target, tmp_path):
    file = tmp_path / "intents.json"
    words = "ferry harbour gulls lighthouse dog sister Bergen tea sugar nine".split()
    rows = [[f"tell me of {word} {i}", f"the_{word}"] for word in words for i in range(11)]
    file.write_text(json.dumps({"train": rows, "test": rows}))
    found = tables(hope("eval", "continual", "--target", target, *SMALL, "--file", file))
    assert list(found) == [
        f"{stream}: {what}"
        for stream in ("intents, 5 steps", "intents, 10 steps", "split digits", "permuted digits")
        for what in ("right after", "forgotten")
    ]
    reached = cells(found["intents, 10 steps: right after"])
    assert list(reached) == ["memory", "all in the prompt", "nearest neighbour", "neither"]
    assert set(reached["nearest neighbour"].values()) == {1.0}
    assert reached["memory"]["step 1"] == 1.0  # one class is known yet
    assert cells(found["intents, 10 steps: forgotten"])["nearest neighbour"]["mean of steps"] == 0.0
    digits = cells(found["permuted digits: right after"])
    assert digits["nearest neighbour"]["step 5"] >= 0.25


def test_language_reads_texts_and_last_words(hope, target, tmp_path):
    text, passages = tmp_path / "a.txt", tmp_path / "last.jsonl"
    sentence = "The ferry leaves the harbour at nine and the gulls follow it past the lighthouse. "
    text.write_text(sentence * 160)
    passages.write_text('{"text": "I like tea. My dog is called Biscuit"}\nThe gulls follow it past the lighthouse.\n')
    found = tables(hope("eval", "language", text, "--lambada", passages, "--target", target, *SMALL))
    assert list(found) == ["Bits a byte", "Nats by position", "A repeated passage", "last: the last word"]
    (bits,) = cells(found["Bits a byte"]).values()
    assert bits["memory, learning as it reads"] < bits["neither"]
    (line,) = found["Nats by position"]["lines"]
    assert all(nats > 0 for nats in line["cells"])
    last = cells(found["last: the last word"])
    assert all(0 <= share <= 1 for share in last["said greedily"].values())
    assert all(nats > 0 for nats in last["nats of the word"].values())


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_mad_trains_every_kind_on_every_task(hope, tmp_path):
    found = tables(hope("eval", "mad", "--scale", "0.001", "--json", "--out", tmp_path))
    right, trained = (cells(table) for table in found.values())
    assert list(right) == ["recall", "copying", "compression"]
    for shares in right.values():
        assert list(shares) == ["HOPE", "Transformer", "gated delta net"]
        assert all(0 <= share <= 1 for share in shares.values())
    assert all(steps >= 1 for steps in trained["recall: steps"].values())
    assert (tmp_path / "mad-two-layers-recall-while-it-learns.png").exists()
