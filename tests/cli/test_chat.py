"""``hope-serve chat``: a conversation typed into a terminal."""

from __future__ import annotations

import io
from uuid import uuid4

import pytest

from hope_serve.client import HopeClient
from hope_serve.errors import NotFound

SHORT = ("--max-tokens", "4", "--temperature", "0")


@pytest.fixture
def chat(hope, target, monkeypatch):
    """``chat(lines, *options)`` types the lines and then Ctrl-D."""

    def typed(lines, *options):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return hope("chat", "--target", target, *SHORT, *options)

    return typed


@pytest.fixture
def user():
    return f"talker-{uuid4().hex[:8]}"


def test_turns_are_answered_learned_and_shown(chat, target, user):
    said = chat(["My dog is called Biscuit.", "", "What is my dog called?", "/quit", "never said"], "--user", user)
    assert said.code == 0
    assert f"you are {user}" in said.out
    assert said.out.count("> ") == 4
    with HopeClient(target) as client:
        _wait_for(lambda: client.get_memory(user).version == 2)


def test_memory_shows_what_is_kept_and_a_refusal_does_not_end_the_conversation(chat, target, user):
    said = chat(["/memory"], "--user", user)
    assert said.code == 0
    assert "NOT_FOUND" in said.out
    with HopeClient(target) as client:
        client.adapt(user, "My dog is called Biscuit.")
    said = chat(["/memory", "hello"], "--user", user)
    assert said.code == 0
    assert "version 1, " in said.out
    assert "tokens learned" in said.out


def test_a_conversation_goes_on_where_it_was_left(chat, user):
    options = ("--user", user, "--session", "one", "--no-learn")
    whole = chat(["The ferry leaves", "and the gulls"], *options)
    parts = chat(["The ferry leaves"], "--user", user, "--session", "two", "--no-learn")
    rest = chat(["and the gulls"], "--user", user, "--session", "two", "--no-learn")
    assert (whole.code, parts.code, rest.code) == (0, 0, 0)
    assert _answers(whole.out) == _answers(parts.out) + _answers(rest.out)


def test_a_line_that_begins_with_a_slash_is_a_command_and_never_learned(chat, target, user):
    lines = ["/help", "/memroy", " /exit now", "/ memory", "/QUIT", "/memory ", "/quit ", "never said"]
    said = chat(lines, "--user", user)
    assert said.code == 0
    for word in ("/quit    ends", "/memroy is no command", "/exit now is no command", "/QUIT is no command"):
        assert word in said.out
    assert said.out.count("NOT_FOUND") == 1, "the memory was shown, and nothing was in it"
    with HopeClient(target) as client, pytest.raises(NotFound):
        client.get_memory(user)


def test_two_slashes_say_a_text_that_begins_with_one(chat, user):
    options = ("--user", user, "--no-learn")
    assert _answers(chat(["//tmp is a folder"], *options).out)


def test_nothing_is_learned_when_told_not_to(chat, target, user):
    assert chat(["My dog is called Biscuit."], "--user", user, "--no-learn").code == 0
    assert "NOT_FOUND" in chat(["/memory"], "--user", user).out


def _answers(out):
    return [answer for answer in out.split("> ")[1:] if answer.strip()]


def _wait_for(condition):
    import time

    for _ in range(200):
        try:
            if condition():
                return
        except NotFound:
            pass
        time.sleep(0.02)
    raise AssertionError("it did not come true")
