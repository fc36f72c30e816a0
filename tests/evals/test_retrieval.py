"""What stands beside a memory: the sentences that BM25 finds, and the nearest neighbour."""

from __future__ import annotations

from hope_serve.evals.arms import BM25, BOTH, MEMORY, NEITHER, PROMPT
from hope_serve.evals.retrieval import Neighbours, best_sentences, sentences

TOLD = ("My dog is called Biscuit. We moved to Leeds. My sister paints.", "It rained.\nThe dog's bed is blue!")


def test_texts_are_cut_into_sentences_in_their_order():
    assert sentences(TOLD) == [
        "My dog is called Biscuit.", "We moved to Leeds.", "My sister paints.", "It rained.", "The dog's bed is blue!",
    ]  # fmt: skip


def test_the_best_sentences_stand_in_the_order_in_which_they_were_told():
    assert best_sentences(TOLD, "What is my dog's bed like?") == ["My dog is called Biscuit.", "The dog's bed is blue!"]
    assert best_sentences(TOLD, "Who paints?", count=1) == ["My sister paints."]


def test_a_question_in_other_words_finds_nothing():
    assert best_sentences(TOLD, "¿?") == []
    assert best_sentences(TOLD, 'xylophone "OR" NEAR(') == []
    assert best_sentences((), "dog") == []


def test_every_arm_asks_the_question_after_its_context():
    question = "Who paints?"
    assert MEMORY.prompt(TOLD, question) == NEITHER.prompt(TOLD, question) == question
    assert BM25.prompt(TOLD, question) == BOTH.prompt(TOLD, question) == f"My sister paints.\n\n{question}"
    assert PROMPT.prompt(TOLD, question) == f"{TOLD[0]}\n{TOLD[1]}\n\n{question}"
    assert [arm.memory for arm in (MEMORY, PROMPT, BM25, BOTH, NEITHER)] == [True, False, False, True, False]


def test_the_nearest_text_gives_its_label():
    neighbours = Neighbours()
    assert neighbours.label("anything") == ""
    neighbours.add("what is the weather like", "weather")
    neighbours.add("what is my balance", "bank")
    assert neighbours.label("the weather in Leeds") == "weather"
    assert neighbours.label("show my balance please") == "bank"
