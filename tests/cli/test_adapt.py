"""``hope-serve adapt``: whole files, once each."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import uuid4

import pytest

from hope_serve.cli.adapt import _pieces
from hope_serve.cli.server_process import ServerProcess
from hope_serve.client import HopeClient
from hope_serve.config import ConfigError


@pytest.fixture
def user():
    return f"reader-{uuid4().hex[:8]}"


@pytest.fixture
def short(checkpoint_folder, tmp_path):
    """A server that takes no more than 200 tokens in one Adapt."""
    with ServerProcess(
        checkpoint=str(checkpoint_folder),
        memory=f"sqlite://{tmp_path}/memory.db",
        log=tmp_path / "log",
        device="cpu",
        set="engine.max_adapt_tokens=200",
    ) as server:
        yield server.target


@pytest.fixture
def notes(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("My dog is called Biscuit.\nMy sister lives in Bergen, and I like tea without sugar.\n")
    return file


def test_a_file_is_learned_once_and_recognised_afterwards(hope, target, user, notes):
    first = hope("adapt", notes, "--user", user, "--target", target)
    again = hope("adapt", notes, "--user", user, "--target", target)
    anew = hope("adapt", notes, "--user", user, "--target", target, "--again")
    assert (first.code, again.code, anew.code) == (0, 0, 0)
    assert re.search(r"notes\.txt\D+\d+\D+\d+\.\d{3}\D+\d+\.\d{3}\D+1\b", first.out)
    assert "known already" not in first.out
    assert "known already" in again.out
    assert "known already" not in anew.out
    with HopeClient(target) as client:
        memory = client.get_memory(user)
        assert memory.version == 2
        assert [source.id for source in memory.sources] == ["notes.txt", "notes.txt"]


def test_a_dry_run_tells_losses_and_learns_nothing(hope, target, user, notes):
    said = hope("adapt", notes, "--user", user, "--mode", "dry_run", "--target", target)
    assert said.code == 0
    assert re.search(r"\d+\.\d{3}", said.out)
    assert hope("memory", "show", user, "--target", target).code == 1


def test_a_file_too_long_for_one_adapt_is_one_version_all_the_same_and_recognised(hope, short, user, notes, tmp_path):
    long = tmp_path / "diary.txt"
    long.write_text("".join(f"On day {day} I walked to the harbour and back.\n" for day in range(30)))
    first = hope("adapt", notes, long, "--user", user, "--target", short)
    again = hope("adapt", notes, long, "--user", user, "--target", short)
    assert (first.code, again.code) == (0, 0)
    assert again.out.count("known already") == 2
    with HopeClient(short) as client:
        memory = client.get_memory(user)
        assert memory.version == 2
        assert [source.id for source in memory.sources] == ["notes.txt", "diary.txt"]
        assert memory.tokens_learned > 300 > client.get_model().max_adapt_tokens


def test_pieces_hold_the_whole_file_in_order_and_none_is_over_the_limit(tmp_path):
    text = "".join(f"line {i} of the naïve 日本語 🎉 file\n" for i in range(40)) + "x" * 500 + "🎉" * 100
    file = tmp_path / "long.txt"
    file.write_text(text)
    for limit in (4, 64, 100, 10_000):
        pieces = list(_pieces(file, limit))
        assert "".join(pieces) == text
        assert all(0 < len(piece.encode()) <= limit for piece in pieces)


def test_a_file_with_windows_line_ends_is_taught_as_it_is(tmp_path):
    file = tmp_path / "windows.txt"
    file.write_bytes(b"one\r\ntwo\r\n")
    assert "".join(_pieces(file, 100)).encode() == file.read_bytes()


def _unreadable(folder: Path) -> tuple[Path, str]:
    return folder, "cannot be read"


def _missing(folder: Path) -> tuple[Path, str]:
    return folder / "none.txt", "cannot be read"


def _empty(folder: Path) -> tuple[Path, str]:
    (folder / "empty.txt").touch()
    return folder / "empty.txt", "is empty"


def _binary(folder: Path) -> tuple[Path, str]:
    (folder / "picture.png").write_bytes(b"\x89PNG\xff\xfe")
    return folder / "picture.png", "is not UTF-8 text"


@pytest.mark.parametrize("make", [_unreadable, _missing, _empty, _binary])
def test_a_file_that_cannot_be_learned_is_named_before_anything_is(hope, target, user, notes, tmp_path, make):
    file, why = make(tmp_path)
    said = hope("adapt", notes, file, "--user", user, "--target", target)
    assert said.code == 2
    assert f"{file} {why}" in said.err
    assert hope("memory", "show", user, "--target", target).code == 1


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--passes", "0", ("options.passes", "0", "[1, 16]")),
        ("--passes", "17", ("options.passes", "17", "[1, 16]")),
        ("--rate", "nan", ("options.learning_rate_scale", "nan", "10")),
        ("--rate", "11", ("options.learning_rate_scale", "11", "10")),
        ("--mode", "sideways", ("--mode", "sideways", "dry_run")),
        ("--user", "", ("user_id", "0", "256")),
    ],
)
def test_an_option_that_is_not_allowed_is_refused_by_name(hope, target, notes, option, value, words):
    said = hope("adapt", notes, "--user", "ann", "--target", target, option, value)
    assert said.code == 2
    for word in words:
        assert word in said.err


def test_a_byte_order_mark_is_no_part_of_what_is_learned(tmp_path):
    plain, marked, bare = tmp_path / "plain", tmp_path / "marked", tmp_path / "bare"
    plain.write_bytes("Zoë likes tea.\r\n".encode())
    marked.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes())
    bare.write_bytes(b"\xef\xbb\xbf")
    assert list(_pieces(marked, 99)) == list(_pieces(plain, 99))
    with pytest.raises(ConfigError, match="is empty"):
        list(_pieces(bare, 99))
