"""Lessons as ids: the base's own template, answers weighted where it matters, replies judged by their words."""

from __future__ import annotations

import random

import pytest
from support.other_makers import TEMPLATE, small_tokenizer

from hope_serve.convert.source import Dialogue
from hope_serve.training.lessons.judge import abstains, holds_any, holds_value, says_ended
from hope_serve.training.lessons.lesson import UNKNOWN_ANSWER, Adapt, Question
from hope_serve.training.parts.packing import ask_row
from hope_serve.training.parts.speech import FIRST_WEIGHT, TEXT_WEIGHT, UNTOLD_WEIGHT, VALUE_WEIGHT, Speech


@pytest.fixture(scope="module")
def speech():
    return Speech(Dialogue(tokenizer=small_tokenizer().to_str().encode(), chat_template=TEMPLATE, stop_tokens=(2,)))


def test_a_question_is_a_chat_of_one_message(speech):
    ids = speech.prompt("Where?")
    assert speech.tokenizer.decode(ids, skip_special_tokens=False) == (
        "<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert ids[: len(speech.before(()))] == speech.before(())


def test_the_first_word_the_value_and_the_rest_of_an_answer_weigh_differently(speech):
    asked = speech.asked(Question("What?", "Your sister lives in Leeds.", ("Leeds",)))
    said = [speech.tokenizer.decode([i]) for i in asked.answer[:-1]]
    assert asked.answer[-1] == speech.end
    assert asked.weights[0] == FIRST_WEIGHT
    of_the_value = "".join(t for t, w in zip(said, asked.weights, strict=False) if w == VALUE_WEIGHT)
    assert of_the_value.strip() == "Leeds"
    assert asked.weights[-1] == 1.0


def test_a_refusal_weighs_less_than_a_value_and_more_than_any_other_word(speech):
    asked = speech.asked(Question("What?", UNKNOWN_ANSWER, (), "untold"))
    assert VALUE_WEIGHT < asked.weights[0] == UNTOLD_WEIGHT < FIRST_WEIGHT
    assert set(asked.weights[1:]) == {1.0}


def test_plain_text_is_continued_without_a_template(speech):
    asked = speech.asked(Question("the town", " by the sea", (), "text"))
    assert speech.tokenizer.decode([*asked.prompt, *asked.answer]) == "the town by the sea"
    assert set(asked.weights) == {TEXT_WEIGHT}


def test_questions_of_one_opening_share_it_in_their_row(speech):
    opening = (("system", "Answer briefly."),)
    asked = [speech.asked(Question(text, "Yes.", ()), opening) for text in ("Is it so?", "Why?")]
    row, held = ask_row(speech.before(opening), asked, 400)
    apart, _ = ask_row([], asked, 400)
    assert held == 2
    assert len(apart.inputs) - len(row.inputs) == len(speech.before(opening))


def test_turns_are_told_by_the_template_and_text_as_it_stands(speech):
    turns = Adapt(turns=(("user", "my sister"), ("assistant", "Noted.")))
    told = speech.tokenizer.decode(speech.told(turns), skip_special_tokens=False)
    assert told == "<|im_start|>user\nmy sister<|im_end|>\n<|im_start|>assistant\nNoted.<|im_end|>\n"
    assert speech.told(Adapt(text="my sister")) == speech.ids("my sister")
    assert {len(speech.opening(random.Random(seed))) for seed in range(20)} == {0, 1}


@pytest.mark.parametrize(
    ("judge", "question", "said", "right"),
    [
        (holds_value, Question("", "", ("Saint-Malo",)), "You live in saint malo, I think.", True),
        (holds_value, Question("", "", ("Ann",)), "Your sister is called Anna.", False),
        (holds_any, Question("", "", ("bath", "tub")), "In the bathtub.", True),
        (holds_any, Question("", "", ("orange",)), "It is red.", False),
        (abstains, Question("", ""), UNKNOWN_ANSWER, True),
        (abstains, Question("", ""), "You know that.", False),
        (says_ended, Question("", "You have no horse."), "You no longer have a horse.", True),
        (says_ended, Question("", "You have no horse."), UNKNOWN_ANSWER, False),
        (says_ended, Question("", "You are retired."), "You work at the bank.", False),
        (says_ended, Question("", "", (), "ended", ("with no sugar",)), "You take it with no sugar.", False),
        (says_ended, Question("", "", (), "ended", ("with no sugar",)), "You no longer take it with no sugar.", True),
    ],
)
def test_replies_are_judged_by_their_words(judge, question, said, right):
    assert judge(question, said) is right
