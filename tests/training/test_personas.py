"""Invented people: what training may know of them, and that whoever listened can answer."""

from __future__ import annotations

import functools
import itertools
import re

import pytest

from hope_serve.training.personas import PersonaFactory, Split, is_held_out, load_attributes, load_pools

PEOPLE = 400


@functools.cache
def drawn(split, invented=0.0):
    people = PersonaFactory(split, seed=3, invented=invented)
    return [fact for _ in range(PEOPLE) for fact in people.facts(8)]


def test_no_value_is_on_both_sides():
    trained = {fact.value.lower() for fact in drawn(Split.TRAIN, 0.35)}
    held_out = {fact.value.lower() for fact in drawn(Split.HELD_OUT)}
    assert len(trained) > 500
    assert len(held_out) > 300
    assert not trained & held_out


def test_no_value_of_a_held_out_pool_is_ever_trained_on():
    held_out = {word for words in load_pools().values() for word in words if is_held_out(word)}
    assert not {fact.value for fact in drawn(Split.TRAIN, 0.35)} & held_out
    told = {fact.value for fact in drawn(Split.HELD_OUT)}
    assert len(told & held_out) > 200


def test_every_pool_has_words_on_both_sides():
    for name, words in load_pools().items():
        held_out = [word for word in words if is_held_out(word)]
        assert 0 < len(held_out) < len(words), name
        assert len(set(words)) == len(words), name


def test_numbers_and_days_are_split_as_words_are():
    numbers = {fact.value for fact in drawn(Split.TRAIN) if re.fullmatch(r"\d+", fact.value)}
    days = {fact.value for fact in drawn(Split.TRAIN) if re.fullmatch(r"[A-Z][a-z]+ \d+", fact.value)}
    assert numbers
    assert days
    assert not any(is_held_out(value) for value in numbers | days)


@pytest.mark.parametrize("split", Split)
def test_every_fact_says_its_value_and_no_question_gives_it_away(split):
    for fact in drawn(split):
        assert fact.value in fact.statement
        assert fact.value in fact.answer
        assert not re.search(rf"\b{re.escape(fact.value)}\b", fact.question)
        assert "{" not in fact.statement + fact.question + fact.answer


def test_every_attribute_can_be_told_corrected_and_asked():
    attributes = load_attributes()
    assert len({attribute.key for attribute in attributes}) == len(attributes)
    for attribute in attributes:
        assert attribute.facts
        assert attribute.updates
        assert attribute.questions


def test_the_facts_of_a_person_are_about_different_things():
    people = PersonaFactory(Split.TRAIN, seed=5)
    for _ in range(100):
        facts = people.facts(12)
        assert len({fact.key for fact in facts}) == 12
        assert people.unknown(facts).key not in {fact.key for fact in facts}
        others = people.facts(8, avoid=frozenset(fact.key for fact in facts))
        assert not {fact.key for fact in facts} & {fact.key for fact in others}


def test_a_correction_is_about_the_same_thing_with_another_value():
    people = PersonaFactory(Split.HELD_OUT, seed=5)
    for fact in people.facts(40):
        news = people.corrected(fact)
        assert news.key == fact.key
        assert news.value != fact.value
        assert news.value in news.statement


def test_a_fact_in_other_words_has_the_same_answer():
    people = PersonaFactory(Split.HELD_OUT, seed=5)
    fact = people.facts(1)[0]
    asked = [people.reworded(fact) for _ in range(50)]
    assert len({other.question for other in asked}) > 1
    assert {(other.key, other.value, other.answer) for other in asked} == {(fact.key, fact.value, fact.answer)}


def test_a_monologue_holds_every_statement():
    people = PersonaFactory(Split.TRAIN, seed=5)
    for _ in range(50):
        facts = people.facts(8)
        told = people.monologue(facts)
        assert all(fact.statement[1:] in told for fact in facts)


def test_the_same_seed_gives_the_same_people_and_another_seed_others():
    def draw(seed):
        people = PersonaFactory(Split.TRAIN, seed=seed, invented=0.5)
        return [(facts := people.facts(6), people.monologue(facts)) for _ in range(20)]

    assert draw(1) == draw(1)
    assert all(one != other for one, other in itertools.pairwise(draw(seed) for seed in range(4)))


def test_invented_words_are_of_the_kind_they_stand_for():
    known = {word for words in load_pools().values() for word in words}
    values = {fact.value for fact in drawn(Split.TRAIN, 1.0)}
    assert len(values - known) > len(values & known)
