"""Labelled examples: what is asked was told in other words, and labels that nobody told are not known."""

from __future__ import annotations

import random

from hope_serve.training.lessons.labelled import Labelled
from hope_serve.training.lessons.lesson import UNKNOWN_ANSWER
from hope_serve.training.lessons.relations import load_relations, wordings
from hope_serve.training.personas import Split


def drawn(seed=0, split=Split.TRAIN):
    relations = [one for one in load_relations() if not one.held_out]
    return Labelled(relations, split, random.Random(seed))


def heard(lesson):
    return "\n".join(adapt.words for adapt in lesson.adapts)


def test_every_label_asked_for_was_told_with_other_examples():
    for seed in range(40):
        lesson = drawn(seed).episode(max_words=150, max_adapts=3)
        said = heard(lesson)
        told = [question for question in lesson.questions if question.kind == "told"]
        assert len({question.answer for question in told}) >= 2
        for question in told:
            assert question.answer in said and question.values == (question.answer,)
            assert question.prompt not in said


def test_of_a_topic_that_was_not_told_nothing_is_known():
    for seed in range(40):
        lesson = drawn(seed).episode(max_words=150)
        untold = [question for question in lesson.questions if question.kind == "untold"]
        assert untold and all(question.answer == UNKNOWN_ANSWER for question in untold)
        assert not any(question.prompt in heard(lesson) for question in untold)


def test_lessons_of_training_hold_no_held_out_question():
    held = {text for one in load_relations() for text in wordings(one.askings, Split.HELD_OUT) if len(one.askings) > 1}
    lessons = [drawn(seed).episode(max_words=200, max_adapts=4) for seed in range(60)]
    said = "\n".join([heard(one) for one in lessons] + [q.prompt for one in lessons for q in one.questions])
    assert not [text for text in held if len(text) > 30 and text in said]


def test_a_lesson_keeps_to_its_room_and_its_number_of_adaptations():
    for seed in range(40):
        lesson = drawn(seed).episode(max_words=120, max_adapts=2)
        assert 1 <= len(lesson.adapts) <= 2
        assert len(heard(lesson).split()) < 240


def test_where_there_is_hardly_room_one_topic_is_told_in_a_few_words():
    for seed in range(40):
        lesson = drawn(seed).episode(max_words=14)
        assert len(heard(lesson).split()) <= 24
        assert [question.kind for question in lesson.questions if question.kind == "told"] == ["told"]


def test_the_same_seed_gives_the_same_lesson():
    assert drawn(5).episode(max_words=90) == drawn(5).episode(max_words=90)
