"""Values that a command refuses, and servers that are not there: an exit code and one sentence, never a traceback."""

from __future__ import annotations

import io
import os

import pytest

FAILED, WRONG, UNREACHABLE = 1, 2, 3
NOBODY = "127.0.0.1:1"


@pytest.mark.parametrize("arguments", [("chat",), ("bench",), ("memory", "ls")], ids=" ".join)
def test_no_server_there_is_exit_code_3_and_says_how_to_start_one(hope, arguments):
    timeout = () if arguments[0] == "memory" else ("--timeout", "2")
    said = hope(*arguments, "--target", NOBODY, *timeout)
    assert said.code == UNREACHABLE
    for word in (NOBODY, "hope-serve serve", "--target"):
        assert word in said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("chat", "--temperature", "nan"), ("sampling.temperature", "nan", "[0.0, 100.0]")),
        (("chat", "--temperature", "-1"), ("sampling.temperature", "-1.0", "100.0")),
        (("chat", "--max-tokens", "0"), ("sampling.max_tokens", "0", "[1, ")),
        (("chat", "--user", "a\nb"), ("--user", "unprintable")),
        (("chat", "--timeout", "0"), ("--timeout",)),
        (("bench", "--streams", "1,two"), ("--streams", "'1,two'", "[1, 1000000]")),
        (("bench", "--streams", "0"), ("--streams", "'0'", "1,4,16")),
        (("bench", "--adapted", "-5"), ("--adapted", "'-5'")),
        (("bench", "--streams", "²"), ("--streams", "'²'")),
        (("bench", "--rounds", "0"), ("--rounds",)),
        (("bench", "--max-tokens", "1"), ("--max-tokens",)),
        (("bench", "--prompt-tokens", "many"), ("--prompt-tokens",)),
        (("eval", "people", "--users", "1"), ("--users",)),
        (("eval", "people", "--facts", "0"), ("--facts",)),
        (("eval", "people", "--facts", "1000"), ("--facts", "1000", "[1, 82]")),
        (("memory", "ls", "--limit", "0"), ("--limit",)),
        (("memory", "show", "ann", "--version", "0"), ("version", "0", "[1, ")),
        (("memory", "rollback", "ann", "0"), ("to_version", "0", "[1, ")),
        (("memory", "rollback", "ann", "one"), ("version", "integer")),
        (("memory", "show", "x" * 257), ("user_id", "257", "256")),
        (("memory", "rm", "", "--yes"), ("user_id", "0", "256")),
    ],
    ids=lambda part: " ".join(part)[:40] if isinstance(part, tuple) else None,
)
def test_a_value_that_is_not_allowed_is_wrong_use_and_names_it(hope, target, arguments, words):
    said = hope(*arguments, "--target", target)
    assert said.code == WRONG, said
    assert "Traceback" not in said.err
    for word in words:
        assert word in said.err


@pytest.mark.parametrize(
    "arguments",
    [("memory", "show", "nobody"), ("memory", "versions", "nobody"), ("memory", "rollback", "nobody", "1")],
    ids=" ".join,
)
def test_a_memory_that_is_not_there_is_exit_code_1(hope, target, arguments):
    said = hope(*arguments, "--target", target)
    assert said.code == FAILED
    assert "NOT_FOUND" in said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("chat",), ("no login name", "--user")),
        (("serve",), ("no home", "--memory sqlite:///")),
        (("doctor",), ("no home", "--memory sqlite:///")),
        (("memory", "upkeep"), ("no home", "--memory sqlite:///")),
        (("serve", "--memory", "sqlite:///a/b", "--checkpoint", "~/model"), ("model.checkpoint", "no home")),
        (("serve", "--memory", "sqlite:///tmp/b", "--set", "memory.key_file=~/keys"), ("~ stands", "no home")),
    ],
    ids=lambda part: " ".join(part)[:40] if isinstance(part, tuple) else None,
)
def test_an_account_without_a_name_and_a_home_is_told_what_to_say(hope, monkeypatch, arguments, words):
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54_321)
    said = hope(*arguments)
    assert said.code == WRONG
    for word in words:
        assert word in said.err


def test_an_erasure_is_asked_for_and_can_be_declined(hope, target, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert hope("memory", "rm", "ann", "--target", target).code == FAILED
