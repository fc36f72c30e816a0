"""A scene's form and its file: read as written, refused by name, and nothing of the everyday set among them."""

from __future__ import annotations

import json
import re
from importlib.resources import files

import pytest
from support.scenes import LATER, POOLS, SWAP

from hope_serve.training.lessons.relations import load_relations
from hope_serve.training.lessons.scene import load_scenes, parse_scene


def test_a_scene_is_read_as_it_is_written():
    scene = parse_scene(SWAP, POOLS)
    assert scene.slots["n"] == POOLS["man_name"]
    assert scene.slots["x"][2] == "old tent"
    assert len(scene.tellings) == 3
    assert scene.askings[0] == ("Who has my {x} now?", "{n} has it.")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("@man_name", "@nobody", "'nobody'"),
        (" / sledge / my bell", "", "4 different values"),
        ("T: {n} gave me his ladder for the {x}.", "T: {n} gave me his ladder.", "does not hold exactly the slots"),
        ("| {n} has it.", "| Somebody.", "'Somebody.' must hold a slot"),
        ("Q: Who has my {x} now?", "Q: Has {n} my {x}?", "must hold a slot of the scene that"),
        ("Q: Who has", "Question: Who has", "is none of"),
        ("but {n}'s.", "but another's.", "must hold the new {n}"),
        ("was not {old}'s", "was not {o}'s", "must hold the new {n}, and besides it {old} and slots alone"),
        ("Q: Who has my {x} now? | {n} has it.", "Q: What is with {n}? | {x}.", "no question asks for n"),
        ("E: The ladder", "E: The {y}", "holds {y}, which the scene has not"),
    ],
)
def test_a_scene_that_is_not_of_the_form_is_refused_by_name(old, new, named):
    assert old in SWAP + LATER
    with pytest.raises(ValueError, match=re.escape(named)):
        parse_scene((SWAP + LATER).replace(old, new), POOLS)


def test_there_are_scenes_enough_and_no_telling_is_twice():
    tellings = [telling for scene in load_scenes() for telling in scene.tellings]
    assert len(load_scenes()) >= 1000
    assert len(set(tellings)) == len(tellings)


def test_no_lesson_has_a_sentence_of_the_everyday_set_or_a_question_that_it_answers():
    people = json.loads(files("hope_serve.training.lessons").joinpath("everyday.json").read_text("utf-8"))
    held = {sentence for person in people for sentence in person["sentences"]}
    held |= {question["ask"] for person in people for question in person["questions"] if question["accept"]}
    worded = {telling for scene in load_scenes() for telling in scene.tellings}
    worded |= {one.question for scene in load_scenes() for one in (*scene.askings, *scene.endings)}
    worded |= {text for relation in load_relations() for text in (*relation.tellings, *relation.askings)}
    assert not {text.lower() for text in held} & {text.lower() for text in worded}
