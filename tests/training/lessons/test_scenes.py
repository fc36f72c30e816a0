"""Scenes: read as written, held out on both sides, and what is asked follows from what is told."""

from __future__ import annotations

import json
import random
import re
from importlib.resources import files

import pytest

from hope_serve.training.lessons.lesson import UNKNOWN_ANSWER
from hope_serve.training.lessons.people import Habits, People
from hope_serve.training.lessons.prose import Prose
from hope_serve.training.lessons.relations import load_relations, side
from hope_serve.training.lessons.scene import load_scenes, parse_scene
from hope_serve.training.lessons.scenes import Scenes
from hope_serve.training.lessons.wording import to_listener
from hope_serve.training.personas import Split

TEXT = "The rain fell on the harbour all day. Nobody spoke of the ship again. She closed the door behind her. " * 80
PLAIN = Habits(noisy_words=False, prose=0, turns=0, in_prompt=0)
SWAP = """x = lawnmower / kayak / old tent / drill / sledge / my bell
n = @man_name
T: I swapped my {x} for {n}'s ladder.
T: {n} gave me his ladder for the {x}.
T: {n}'s ladder is mine now, and he has the {x}.
Q: Who has my {x} now? | {n} has it.
Q: What did I give for {n}'s ladder? | {x}."""
LATER = """
C n: I mixed that up, the ladder was not {old}'s but {n}'s.
E: The ladder broke under me. | Do we still have that ladder? | No, it broke, and {n} has your {x}."""
POOLS = {"man_name": ("Henryk", "Bo", "Anselm", "Piet", "Idris", "Ulf")}


def scenes(split, seed=0, habits=PLAIN):
    draw = random.Random(seed)
    people = People(Split.TRAIN, Prose({"books": TEXT}, draw), draw, habits=habits)
    return Scenes(split, people, draw)


def heard(value, said):
    """Whether a listener of ``said`` has heard the value, or what it is for him."""
    return value.lower() in said.lower() or value.lower() in to_listener(said.lower().replace('"', ""))


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


def test_what_is_said_later_is_what_is_asked_for_and_what_is_answered():
    drawn = scenes(Split.TRAIN, habits=Habits(noisy_words=False, prose=0, turns=0, in_prompt=0, correct=1, end=1))
    drawn.scenes = (parse_scene(SWAP + LATER, POOLS),)
    happened = drawn.choose(1)[0]
    text, after = drawn.change(happened)
    assert text == f"I mixed that up, the ladder was not {happened.values['n']}'s but {after.values['n']}'s."
    assert after.values["n"] != happened.values["n"]
    question = drawn.question(after)
    assert (question.kind, question.values) == ("corrected", (after.values["n"],))
    _, over = drawn.end(happened)
    values = happened.values
    answer = f"No, it broke, and {values['n']} has your {to_listener(values['x'])}."
    assert drawn.question(over) == ("Do we still have that ladder?", answer, (), "ended")


def test_what_changed_is_told_after_what_it_changes():
    habits = Habits(noisy_words=False, prose=0, turns=0, in_prompt=0, correct=1, end=1)
    drawn = scenes(Split.TRAIN, habits=habits)
    kinds, swap = set(), parse_scene(SWAP + LATER, POOLS)
    drawn.choose = lambda count: [drawn._happened(swap)] * count
    for _ in range(30):
        lesson = drawn.episode(1, max_words=60)
        text = " ".join(adapt.words for adapt in lesson.adapts)
        ladder = [at for at in (text.find("I mixed"), text.find("The ladder broke")) if at >= 0]
        assert len(ladder) == 1
        assert re.search("lawnmower|kayak|old tent|drill|sledge|my bell", text).start() < ladder[0]
        kinds |= {question.kind for question in lesson.questions}
    assert kinds >= {"corrected", "ended", "told"}


def test_there_are_scenes_enough_and_no_telling_is_twice():
    tellings = [telling for scene in load_scenes() for telling in scene.tellings]
    assert len(load_scenes()) >= 1000
    assert len(set(tellings)) == len(tellings)


def test_no_scene_of_the_held_out_side_is_told_in_training():
    trained, held = scenes(Split.TRAIN), scenes(Split.HELD_OUT)
    assert 0.05 < len(held.scenes) / len(trained.scenes) < 0.2
    told = {telling for scene in trained.scenes for telling in scene.tellings}
    assert not told & {telling for scene in held.scenes for telling in scene.tellings}


def test_no_lesson_has_a_sentence_of_the_everyday_set_or_a_question_that_it_answers():
    people = json.loads(files("hope_serve.training.lessons").joinpath("everyday.json").read_text("utf-8"))
    held = {sentence for person in people for sentence in person["sentences"]}
    held |= {question["ask"] for person in people for question in person["questions"] if question["accept"]}
    worded = {text for scene in load_scenes() for text in (*scene.tellings, *(a.question for a in scene.askings))}
    worded |= {text for relation in load_relations() for text in (*relation.tellings, *relation.askings)}
    assert not {text.lower() for text in held} & {text.lower() for text in worded}


def test_lessons_of_training_hold_no_held_out_value_and_no_last_telling():
    lasts = {s.tellings[-1] for s in load_scenes() if len(s.tellings) > 2}
    for scene in scenes(Split.TRAIN).scenes:
        assert not lasts & set(scene.tellings)
        for values in scene.slots.values():
            trained = set(side(values, Split.TRAIN))
            assert set(values) <= trained or len(trained) < 2


def test_every_answer_is_in_what_was_told_and_as_many_are_untold():
    drawn = scenes(Split.TRAIN)
    for _ in range(100):
        happened = drawn.choose(3)
        text = " ".join(drawn.tell(one) for one in happened).lower()
        for one in happened:
            question = drawn.question(one)
            assert all(v in question.answer for v in question.values)
            assert all(heard(value, text) for value in question.values), (question, text)
    lesson = drawn.episode(4, max_words=150)
    untold = [q for q in lesson.questions if q.kind == "untold"]
    assert len(untold) * 2 == len(lesson.questions)
    assert all(q.answer == UNKNOWN_ANSWER for q in untold)


def test_now_and_then_the_answer_stands_before_the_question():
    drawn = scenes(Split.TRAIN, habits=Habits(noisy_words=False, prose=0, turns=0, in_prompt=1))
    read = [q for _ in range(50) for q in drawn.episode(2, max_words=80).questions if q.kind == "read"]
    assert len(read) == 50
    for question in read:
        assert all(heard(value, question.prompt) for value in question.values), question


def test_an_untold_question_is_of_another_scene_or_has_another_value():
    drawn = scenes(Split.TRAIN, seed=3)
    for _ in range(60):
        lesson = drawn.episode(1, max_words=60)
        asked = {q.prompt for q in lesson.questions if q.kind != "untold"}
        assert not asked & {q.prompt for q in lesson.questions if q.kind == "untold"}


def test_what_a_speaker_says_of_himself_is_said_to_him():
    assert to_listener("on my sofa, because I was late") == "on your sofa, because you were late"
    assert to_listener("called me a menu") == "called you a menu"
    assert to_listener("Our Lady of the Snows") == "Our Lady of the Snows" and to_listener("US-07397") == "US-07397"
    assert to_listener("I'd rather sell mine, but we'd sold it") == "you'd rather sell yours, but you'd sold it"
    assert to_listener("down the salt mine with a friend of mine") == "down the salt mine with a friend of yours"
    assert to_listener('shouted "my hat!"') == 'shouted "my hat!"'


def test_the_same_seed_gives_the_same_lesson():
    assert scenes(Split.TRAIN, 5).episode(3, max_words=90) == scenes(Split.TRAIN, 5).episode(3, max_words=90)
