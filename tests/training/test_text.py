"""Plain text as ids, and windows over them."""

from __future__ import annotations

import numpy as np
import pytest

from hope_serve.training.text import TextWindows, tokenize_files

BOOK = "It was late.\nThe ferry had gone.\n"
DIALOGUE = "User: hello there\nAssistant: good morning\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(f"{BOOK}\x1e\n{DIALOGUE}\x1e\n{BOOK}\x1e\n")
    return path


@pytest.fixture
def windows(tokenizer, file):
    ids = np.tile(tokenize_files(tokenizer, (file,)), 20)
    return lambda *seed: TextWindows(ids, tokenizer, seed=seed[0] if seed else 0)


def test_documents_are_opened_and_closed_and_dialogues_become_turns(tokenizer, file):
    ids = tokenize_files(tokenizer, (file,)).tolist()
    assert ids.count(tokenizer.doc) == 2
    assert ids.count(tokenizer.end) == 4
    assert (ids.count(tokenizer.user), ids.count(tokenizer.assistant)) == (1, 1)
    assert BOOK.strip() in tokenizer.decode(ids)
    assert "Assistant:" not in tokenizer.decode(ids)


def test_files_follow_each_other_and_a_cache_gives_the_same(tokenizer, file, tmp_path):
    plain = tokenize_files(tokenizer, (file, file))
    made = tokenize_files(tokenizer, (file, file), cache=tmp_path / "cache")
    read = tokenize_files(tokenizer, (file, file), cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1
    for ids in (made, read):
        assert np.array_equal(ids, plain)


def test_a_changed_file_is_read_anew(tokenizer, file, tmp_path):
    before = tokenize_files(tokenizer, (file,), cache=tmp_path / "cache")
    file.write_text(f"{BOOK}\x1e\n")
    after = tokenize_files(tokenizer, (file,), cache=tmp_path / "cache")
    assert len(after) < len(before)


def test_every_other_window_begins_like_a_document_at_the_start_of_a_line(windows, tokenizer):
    batch = windows().batch(8, 12)
    assert batch.shape == (8, 12)
    for row in batch[::2].tolist():
        assert row[0] == tokenizer.doc


def test_windows_are_drawn_by_seed_and_a_reseeded_object_is_as_new(windows):
    one, other, third = windows(1), windows(1), windows(2)
    first = one.batch(4, 10)
    assert np.array_equal(first, other.batch(4, 10))
    assert not np.array_equal(first, third.batch(4, 10))
    third.reseed(1)
    assert np.array_equal(first, third.batch(4, 10))
    one.reseed(5, 6)
    other.reseed(5, 7)
    assert one.draw(30) != other.draw(30)


def test_a_window_longer_than_the_text_is_refused_with_both_lengths(windows):
    for draw in (lambda: windows().draw(10_000), lambda: windows().batch(2, 10_000)):
        with pytest.raises(ValueError, match=r"the text has \d+ tokens, and a window takes 10000; name more text"):
            draw()


def test_no_text_is_refused_by_name(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="no text files"):
        tokenize_files(tokenizer, ())
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ValueError, match=r"empty\.txt holds no documents"):
        tokenize_files(tokenizer, (tmp_path / "empty.txt",))
