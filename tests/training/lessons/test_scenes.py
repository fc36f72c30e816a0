"""Lessons of scenes: held out on both sides, and what is asked follows from what is told, first and later."""

from __future__ import annotations

import random
import re

from support.scenes import LATER, POOLS, SWAP

from hope_serve.training.lessons.lesson import OVER, UNKNOWN_ANSWER
from hope_serve.training.lessons.people import Habits, People
from hope_serve.training.lessons.prose import Prose
from hope_serve.training.lessons.relations import side
from hope_serve.training.lessons.scene import Asking, load_scenes, parse_scene
from hope_serve.training.lessons.scenes import YES, Scenes
from hope_serve.training.lessons.wording import to_listener
from hope_serve.training.personas import Split

COUSINS = """a = @man_name
b = @man_name
T: My cousin {a} has a son, {b}.
T: {b} is the son of my cousin {a}.
Q: What is my cousin called? | {a}.
Q: Whose father is {a}? | {b}'s.
C b: No, {old} is the neighbour's, my cousin's boy is {b}."""
SWAPPED = Asking("Who has it now?", "{n} has it.")
TEXT = "The rain fell on the harbour all day. Nobody spoke of the ship again. She closed the door behind her. " * 80
PLAIN = Habits(noisy_words=False, prose=0, turns=0, in_prompt=0)


def scenes(split, seed=0, habits=PLAIN):
    draw = random.Random(seed)
    people = People(Split.TRAIN, Prose({"books": TEXT}, draw), draw, habits=habits)
    return Scenes(split, people, draw)


def heard(value, said):
    """Whether a listener of ``said`` has heard the value, or what it is for him."""
    return value.lower() in said.lower() or value.lower() in to_listener(said.lower().replace('"', ""))


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
    gone = tuple(values.values())
    assert drawn.question(over) == ("Do we still have that ladder?", answer, (), "ended", gone)


def test_what_is_over_is_said_in_the_same_words_first_unless_yes_or_no_was_asked_for():
    drawn = scenes(Split.TRAIN)
    asks_what = LATER.replace("Do we still have that ladder? | No, it broke", "Which ladder is ours? | None, it broke")
    drawn.scenes = (parse_scene(SWAP + asks_what, POOLS),)
    _, over = drawn.end(drawn.choose(1)[0])
    assert drawn.question(over).answer.startswith(f"{OVER} None, it broke")


def test_whether_something_still_is_so_is_asked_while_it_is_too_and_where_nobody_told_it():
    drawn = scenes(Split.TRAIN)
    drawn.scenes = (parse_scene(SWAP + LATER, POOLS),)
    one = drawn.choose(1)[0]
    stills = [found for _ in range(100) if (found := drawn._still(one))]
    assert {(q.prompt, q.answer) for q in stills} == {("Do we still have that ladder?", YES)}
    assert 10 < len(stills) < 60
    assert drawn._still(drawn.change(one)[1]) is None
    told = drawn._happened(parse_scene(SWAP, POOLS))
    asked = {drawn._untold([told], told, SWAPPED).prompt for _ in range(100)}
    assert "Do we still have that ladder?" in asked


def test_what_was_true_before_is_not_asked_for_as_if_nobody_had_told_it():
    drawn = scenes(Split.TRAIN, habits=Habits(noisy_words=False, prose=0, turns=0, in_prompt=0))
    swap = parse_scene(SWAP + LATER, POOLS)
    _, after = drawn.change(drawn._happened(swap))
    asked = {drawn._untold([after], after, swap.askings[1]).prompt for _ in range(400)}
    near = {text for text in asked if text.startswith("What did I give for ")}
    assert len(near) == len(POOLS["man_name"]) - 2
    assert not any(f"{name}'s" in text for text in near for name in (after.old, after.values["n"]))


def test_two_slots_of_one_pool_never_have_one_value():
    drawn = scenes(Split.TRAIN)
    cousins = parse_scene(COUSINS, POOLS)
    for _ in range(200):
        one = drawn._happened(cousins)
        assert one.values["a"] != one.values["b"]
        _, after = drawn.change(one)
        assert after.values["a"] != after.values["b"]
        untold = drawn._untold([one], one, cousins.askings[1]).prompt
        assert untold not in {f"Whose father is {name}?" for name in one.values.values()}


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


def test_no_scene_of_the_held_out_side_is_told_in_training():
    trained, held = scenes(Split.TRAIN), scenes(Split.HELD_OUT)
    assert 0.05 < len(held.scenes) / len(trained.scenes) < 0.2
    told = {telling for scene in trained.scenes for telling in scene.tellings}
    assert not told & {telling for scene in held.scenes for telling in scene.tellings}


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
