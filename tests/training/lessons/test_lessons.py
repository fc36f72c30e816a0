"""Lessons: three kinds of held-out things never reach training, and what is asked follows from what is told."""

from __future__ import annotations

import random
import re

import pytest

from hope_serve.training.lessons.completions import completion_episode, continued_episode
from hope_serve.training.lessons.joined import Joined
from hope_serve.training.lessons.lesson import OVER, UNKNOWN_ANSWER
from hope_serve.training.lessons.people import Habits, People
from hope_serve.training.lessons.prose import Prose
from hope_serve.training.lessons.relations import load_relations, load_values, side, wordings
from hope_serve.training.lessons.wording import asked, filled, told
from hope_serve.training.personas import Split, is_held_out

LESSONS = 400
TEXT = "The rain fell on the harbour all day. Nobody spoke of the ship again. She closed the door behind her. " * 80
PLAIN = Habits(noisy_words=False, in_prompt=0)


def prose(seed=0):
    return Prose({"books": TEXT}, random.Random(seed))


def people(split, seed=0, **options):
    return People(split, prose(seed), random.Random(seed), **options)


def spoken(episode):
    return [text for adapt in episode.adapts for text in (adapt.text, *(said for _, said in adapt.turns))]


def as_pattern(wording):
    """The wording with anything at all for its values."""
    return re.compile(".+".join(re.escape(part) for part in re.split(r"\{v\}|\{old\}", wording) if part), re.IGNORECASE)


def test_no_wording_is_on_both_sides():
    for relation in load_relations():
        for texts in (relation.tellings, relation.askings, relation.corrections):
            train, held = wordings(texts, Split.TRAIN), wordings(texts, Split.HELD_OUT)
            assert train
            assert held
            assert len(texts) == 1 or not set(train) & set(held), relation.key


def test_relations_and_values_are_on_one_side_each():
    trained, new = people(Split.TRAIN).relations, people(Split.HELD_OUT, new_relations=True).relations
    assert not {r.attribute for r in trained} & {r.attribute for r in new}
    assert 0.04 < len(new) / len(trained) < 0.35
    for values in load_values().values():
        assert not set(side(values, Split.TRAIN)) & set(side(values, Split.HELD_OUT))


def test_lessons_of_training_hold_nothing_that_is_held_out():
    drawn = people(Split.TRAIN, habits=PLAIN)
    lessons = [drawn.episode(4, max_words=120) for _ in range(LESSONS)]
    said = "\n".join(text for lesson in lessons for text in spoken(lesson))
    asked_of = {question.prompt for lesson in lessons for question in lesson.questions}
    values = {value for lesson in lessons for question in lesson.questions for value in question.values}
    assert not {value for value in values if is_held_out(value)}
    trained = "\n".join(text for relation in load_relations() for text in wordings(relation.tellings, Split.TRAIN))
    for relation in load_relations():
        for wording in wordings(relation.askings, Split.HELD_OUT):
            assert wording not in asked_of, relation.key
        for wording in wordings(relation.tellings, Split.HELD_OUT):
            longest = max(re.split(r"\{v\}", wording), key=len)
            if len(longest) > 18 and longest not in trained:
                assert longest not in said, (relation.key, wording)


def test_nothing_that_changes_a_fact_in_training_repeats_a_held_out_telling():
    relations = load_relations()
    trained = "\n".join(text for relation in relations for text in wordings(relation.tellings, Split.TRAIN))
    changes = "\n".join(
        text
        for relation in relations
        for text in (
            *wordings(relation.corrections, Split.TRAIN),
            *(end.telling for end in wordings(relation.ended, Split.TRAIN)),
        )
    )
    for relation in relations:
        for wording in wordings(relation.tellings, Split.HELD_OUT):
            longest = max(re.split(r"\{v\}", wording), key=len)
            if len(longest) > 18 and longest not in trained:
                assert longest not in changes, (relation.key, wording)


def test_joined_questions_of_the_two_sides_share_no_template_and_no_value():
    sides = [Joined(split, random.Random(0)) for split in Split]
    for draw in ("hop", "place"):
        drawn = [[getattr(joined, draw)() for _ in range(LESSONS)] for joined in sides]
        told_on = [{text for pieces, _ in one for text in pieces} for one in drawn]
        assert not told_on[0] & told_on[1]
    values = [
        {v for _, questions in [joined.hop() for _ in range(LESSONS)] for v in questions[0].values} for joined in sides
    ]
    assert not values[0] & values[1]


def test_there_are_as_many_untold_questions_as_told_ones():
    drawn = people(Split.TRAIN, habits=Habits(in_prompt=0))
    questions = [q for _ in range(50) for q in drawn.episode(5, max_words=150).questions]
    untold = [q for q in questions if q.kind == "untold"]
    assert len(untold) * 2 == len(questions)
    assert {q.answer for q in untold} == {UNKNOWN_ANSWER}


def test_every_value_asked_for_was_told():
    drawn = people(Split.TRAIN, habits=PLAIN)
    for _ in range(200):
        lesson = drawn.episode(3, max_words=100)
        said = " ".join(spoken(lesson)).lower()
        for question in lesson.questions:
            assert all(value.lower() in said for value in question.values)
            assert question.kind == "untold" or question.answer != UNKNOWN_ANSWER


def test_a_correction_replaces_the_value_and_an_end_leaves_none():
    drawn = people(Split.TRAIN, habits=PLAIN)
    relation = next(r for r in drawn.relations if r.corrections and r.ended)
    known = drawn.known(relation, drawn.value(relation))
    text, corrected = drawn.correct(known)
    assert corrected.value != known.value
    assert corrected.value.lower() in text.lower()
    _, ended = drawn.end(known)
    assert (ended.value, ended.kind, ended.gone) == ("", "ended", known.value)
    question = drawn.question(ended)
    assert question.answer.startswith(OVER) and question.gone == (known.value,) and not question.values


def test_an_untold_question_is_never_answered_by_something_told():
    drawn = people(Split.TRAIN)
    for _ in range(300):
        told_of = drawn.choose(6)
        other = drawn.unknown_relation(told_of, near=told_of[0])
        assert not any(other.clashes(one) for one in told_of)


def test_the_same_seed_gives_the_same_lessons():
    first, second = (people(Split.TRAIN, seed=3).episode(6, max_words=200) for _ in range(2))
    assert first == second


def test_completions_ask_for_the_rest_of_sentences_that_were_told():
    draw = random.Random(1)
    for _ in range(30):
        lesson = completion_episode(prose(1), draw, num_sentences=4, max_words=80)
        said = spoken(lesson)[0] or spoken(lesson)[1]
        for question in lesson.questions:
            assert question.kind == "untold" or question.answer.strip() in said


def test_a_continued_text_goes_on_where_the_telling_ends():
    lesson = continued_episode(prose(2), max_words=60)
    rest = lesson.questions[0]
    assert f"{lesson.adapts[0].text} {rest.prompt}{rest.answer}" in " ".join((TEXT + TEXT).split())


@pytest.mark.parametrize("seed", range(20))
def test_slips_of_the_finger_never_touch_a_value(seed):
    draw = random.Random(seed)
    assert "{v}" in told("My sister Greta keeps {v} under the stairs.", draw)
    assert asked("Where does she keep it?", draw)
    assert filled("{v} is my horse.", "copper Dusk") == "Copper Dusk is my horse."
