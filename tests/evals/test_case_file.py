"""A stranger's cases: lines become rows, and what is wrong with a line is said with its number."""

from __future__ import annotations

import json

import pytest

from hope_serve.errors import InvalidRequest
from hope_serve.evals.case_file import load_case_file

BEES = ["We keep bees.", "Otto fixed the gate."]


def written(tmp_path, *lines):
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_lines_with_the_same_facts_ask_one_person(tmp_path):
    path = written(
        tmp_path,
        {"facts": BEES, "question": "Who fixed the gate?", "answers": ["Otto", "him"]},
        "",
        {"facts": BEES, "question": "Who sold it?", "answers": []},
        {"facts": ["I am Ada."], "question": "Who am I?", "answers": ["Ada"]},
    )
    rows = {row.name: row for row in load_case_file(path)}
    assert list(rows) == ["mine: told", "mine: told but refused", "mine: never told, says so"]
    told = rows["mine: told"]
    assert [case.adapts[0].text for case in told.cases] == ["We keep bees. Otto fixed the gate.", "I am Ada."]
    (question,) = told.cases[0].asked
    assert told.judge(question, "It was OTTO.")
    assert told.judge(question, "Ask him")
    assert not told.judge(question, "Nobody")
    untold = rows["mine: never told, says so"]
    assert [q.prompt for case in untold.cases for q in case.asked] == ["Who sold it?"]
    assert untold.judge(untold.cases[0].asked[0], "You haven't told me.")


def test_a_file_without_untold_questions_has_no_row_of_them(tmp_path):
    path = written(tmp_path, {"facts": BEES, "question": "Who?", "answers": ["Otto"]})
    assert [row.name for row in load_case_file(path)] == ["mine: told", "mine: told but refused"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "mine.jsonl:2"),
        ({"facts": BEES, "question": "Who?"}, "missing required field `answers`"),
        ({"facts": BEES, "question": "Who?", "answers": [], "more": 1}, "unknown field `more`"),
        ({"facts": [], "question": "Who?", "answers": []}, "facts is empty"),
        ({"facts": BEES, "question": " ", "answers": []}, "question holds an empty text"),
        ({"facts": BEES, "question": "Who?", "answers": [""]}, "answers holds an empty text"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, words):
    path = written(tmp_path, {"facts": BEES, "question": "Who?", "answers": []}, line)
    with pytest.raises(InvalidRequest, match=words) as refused:
        load_case_file(path)
    assert "mine.jsonl:2" in str(refused.value)


def test_no_file_and_no_cases_are_refused(tmp_path):
    with pytest.raises(InvalidRequest, match="cannot be read"):
        load_case_file(tmp_path / "none.jsonl")
    with pytest.raises(InvalidRequest, match="no cases"):
        load_case_file(written(tmp_path, ""))
