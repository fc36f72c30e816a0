"""Passages from running text: each rule by a text that keeps it and one that breaks it; a file that is read back."""

from __future__ import annotations

import json
import re
import sys
from hashlib import sha256

import pytest

from hope_serve.errors import InvalidRequest
from hope_serve.evals import passages as made
from hope_serve.evals.last_words import last_sentence, load_passages
from hope_serve.evals.passages import cut, guess, load_text, passages

FIRST = "The ferry left the harbour with nine sheep on deck."
FILL = "Nobody on the quay had ever seen so many birds above one small boat as it put to sea."
ASKED = "At noon all hands went below to look for the sheep."


def paragraph(first=FIRST, last=ASKED, *, fills=2):
    return " ".join([first, *[FILL] * fills, last])


def test_a_paragraph_is_cut_behind_its_last_word():
    assert cut(paragraph()) == paragraph().removesuffix(".")
    assert cut(paragraph(last=ASKED.replace("sheep.", 'sheep!"'))) == paragraph().removesuffix(".")


@pytest.mark.parametrize(("num_words", "fits"), [(49, False), (50, True), (120, True), (121, False)])
def test_passages_have_50_to_120_words(num_words, fits):
    told = f"{FIRST} The wind was {'very ' * (num_words - 25)}cold. {ASKED}"
    assert len(told.split()) == num_words
    assert cut(told) == (told.removesuffix(".") if fits else None)


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("The ferry left the harbour with nine goats on deck.", ASKED),  # it stands nowhere before
        ("The ferry left the harbour with nine Sheep on deck.", ASKED),  # not letter for letter
        ("The ferry left the harbour with a sheepdog on deck.", ASKED),  # in another word only
        (FIRST, "Sheep were what they went below to look for, but at noon nobody found sheep."),
        (FIRST.replace("sheep", "pigs, a ram"), ASKED.replace("the sheep", "a ram")),  # of three letters
        (FIRST.replace("on deck", "on board, or without"), ASKED.replace("the sheep", "what they went without")),
        (FIRST, ASKED.replace("the sheep.", "the sheep and the two old men of the crew, 14.")),
        (FIRST, ASKED.replace("the sheep", "half-sheep")),
        (FIRST, ASKED.replace("sheep.", "sheep...")),
        (FIRST, ASKED.replace("sheep.", "sheep,")),
    ],
)
def test_a_word_that_the_context_does_not_tell_is_not_asked_for(first, last):
    assert cut(paragraph(first, last)) is None


def test_of_one_beginning_the_longest_is_taken_and_a_later_one_where_the_first_has_none():
    shorter = paragraph(fills=2)
    longer = f"{shorter} {FILL} Then the mate counted every bird on the quay."
    assert cut(longer) == longer.removesuffix(".")
    least = len(shorter.split())
    fit = (made.MOST_WORDS - least) // len(FILL.split())
    assert cut(" ".join([FILL] * 9 + [shorter])) == " ".join([FILL] * fit + [shorter]).removesuffix(".")


def test_a_title_or_an_initial_ends_no_sentence():
    last = "At noon the nine sheep of Mr. Oliver B. Reed were counted, for he could not do without his sheep."
    assert cut(paragraph(last=last)) is None
    first = "The ferry left the harbour with old Capt Reed on deck."
    last = "At noon nobody on board would have known old Capt. Reed from the brother that he had in town."
    assert cut(paragraph(first, last)) is None


def test_verse_and_broken_lines_are_left_out():
    assert passages(paragraph()) == [paragraph().removesuffix(".")]
    assert passages(paragraph().replace(" on deck", "\non deck")) == []


@pytest.mark.parametrize(("begins_at", "num_passages"), [(60, 1), (499, 1), (500, 2)])
def test_a_region_of_500_words_gives_one_passage(begins_at, num_passages):
    near, far = (paragraph(last=ASKED.replace("noon", hour)) for hour in ("noon", "ten"))
    between = "so " * (begins_at - len(near.split()))
    assert len(passages(f"{near}\n\n{between}\n\n{far}")) == num_passages


def test_every_document_begins_with_a_region_of_its_own():
    near, far = (paragraph(last=ASKED.replace("noon", hour)) for hour in ("noon", "ten"))
    assert set(passages(f"{near}\n\x1e\n{far}\n\x1e\n")) == {near[:-1], far[:-1]}


def test_the_order_is_that_of_sha_256_whichever_document_comes_first():
    documents = [paragraph(last=ASKED.replace("noon", hour)) for hour in ("noon", "one", "two", "three", "four")]
    ordered = sorted((one[:-1] for one in documents), key=lambda one: sha256(one.encode()).hexdigest())
    for order in (documents, documents[::-1]):
        assert passages("\n\x1e\n".join(order)) == ordered


def test_the_suite_reads_the_file_and_its_last_sentence_never_tells(tmp_path, monkeypatch, capsys):
    text, out = tmp_path / "books.txt", tmp_path / "passages.jsonl"
    told = "She said: \"We lost nine sheep!\" Old Mrs. Ferry called: 'Come in.' Then all was still on the quay."
    text.write_text("\n\x1e\n".join([paragraph(), paragraph(told, 'He asked: "Who would steal a sheep?"', fills=2)]))
    monkeypatch.setattr(sys, "argv", ["passages", str(text), "--out", str(out)])
    made.main()
    assert re.search(
        r"2 passages; a guess is right [0-9.]+% of the time; SHA-256 [0-9a-f]{64}\n", capsys.readouterr().out
    )
    assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == passages(text.read_text())
    read = load_passages(out)
    assert [word for _, word in read] == ["sheep", "sheep"]
    for start, word in read:
        assert word in start
        assert word not in last_sentence(start)


def test_a_guess_is_among_the_words_that_the_rules_leave():
    two = "We saw ferries and some sheep. At noon we lost all the sheep"
    four = "The ferry brought nine sheep. We counted the sheep"
    one = "Ann gave hens and goats, and sheep to the vet! She kept Sheep, hens, cows, and the goats"
    assert guess([two]) == 1 / 2
    assert guess([two, four]) == (1 / 2 + 1 / 4) / 2
    assert guess([one]) == 1


def test_a_text_without_passages_and_one_that_is_none_are_refused(tmp_path, monkeypatch):
    text = tmp_path / "books.txt"
    text.write_text(FIRST)
    monkeypatch.setattr(sys, "argv", ["passages", str(text), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="no passage was found"):
        made.main()
    assert not (tmp_path / "out").exists()
    text.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidRequest, match="cannot be read as UTF-8"):
        load_text(text)
