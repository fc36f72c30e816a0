"""Stories follow from their lines, and a reply is right when it names the answer alone."""

from __future__ import annotations

import re

import pytest

from hope_serve.evals.babi import ROOMS, Stories, alone_among
from hope_serve.training.lessons.lesson import Question

MANY = 200


@pytest.fixture
def stories():
    return Stories(3)


def test_the_same_seed_tells_the_same_stories():
    told = [[tell() for _, tell in Stories(5).kinds] for _ in range(2)]
    assert told[0] == told[1]


def test_every_answer_stands_in_its_story_and_among_its_candidates(stories):
    for _, tell in stories.kinds:
        for _ in range(MANY):
            story = tell()
            assert story.answer in story.candidates
            assert story.answer in " ".join(story.lines)


def test_somebody_is_where_they_last_went(stories):
    for _ in range(MANY):
        story = stories.where_is_one()
        person = re.fullmatch(r"Where is (\w+)\?", story.question)[1]
        last = [line for line in story.lines if person in line][-1]
        assert story.answer in last


def test_a_thing_is_where_its_carrier_put_it_or_is(stories):
    for _ in range(MANY):
        story = stories.where_is_thing()
        thing = re.fullmatch(r"Where is the (\w+)\?", story.question)[1]
        (taken,) = [
            i for i, line in enumerate(story.lines) if thing in line and re.search("picked up|took|carries", line)
        ]
        carrier = story.lines[taken].split()[0]
        place = ""
        for line in story.lines[taken:]:
            if thing in line and ("down" in line or "left" in line):
                break
            if carrier in line and (rooms := [room for room in ROOMS if room in line]):
                place = rooms[0]
        assert story.answer == place


def test_a_thing_was_in_the_room_before_the_last(stories):
    for _ in range(MANY):
        story = stories.where_was_thing()
        carrier = next(word for word in story.lines[1].split() if word[0].isupper())
        rooms = [
            next(r for r in ROOMS if r in line)
            for line in story.lines
            if carrier in line and any(r in line for r in ROOMS)
        ]
        assert story.answer == rooms[-2]
        assert rooms[-1] in story.question


def test_right_is_the_answer_and_nothing_else_of_its_kind():
    judge = alone_among({ROOMS})
    question = Question("Where was the ball before the attic?", "hall", ("hall",))
    assert judge(question, "It was in the Hall, before the attic.")
    assert not judge(question, "In the hall or the cellar.")
    assert not judge(question, "In the hallway.")
    assert not judge(question, "")
