"""The written lessons: every relation is whole, every sentence has its blank, and no sentence serves two relations."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

import hope_serve.training

LESSONS = Path(hope_serve.training.__file__).parent / "lessons"
FIELDS = {"key", "owner", "attribute", "pool", "tellings", "askings", "answer", "corrections", "ended"}
BLANK = re.compile(r"\{(\w*)\}")


def blanks(sentence):
    return sorted(BLANK.findall(sentence))


def twice(words):
    return [word for word, count in Counter(words).items() if count > 1]


POOLS = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(LESSONS.glob("pools_*.json"))]
TOPICS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(LESSONS.glob("relations/*.json"))}
RELATIONS = [relation for topic in TOPICS.values() for relation in topic]


def test_there_are_lessons_enough_to_teach_from():
    assert len(RELATIONS) >= 150


def test_keys_are_unique_snake_case():
    assert not twice(relation["key"] for relation in RELATIONS)
    assert not [relation["key"] for relation in RELATIONS if not re.fullmatch(r"[a-z][a-z0-9_]*", relation["key"])]


def test_no_pool_is_defined_twice():
    assert not twice(name for pools in POOLS for name in pools)


def test_every_pool_has_values_enough_and_none_twice():
    for name, values in ((name, values) for pools in POOLS for name, values in pools.items()):
        assert len(values) >= 25, name
        assert not twice(values), name
        assert not [value for value in values if value != value.strip() or not value or "{" in value], name


@pytest.mark.parametrize("relations", TOPICS.values(), ids=TOPICS)
class TestTopic:
    def test_has_every_field_and_a_pool(self, relations):
        for relation in relations:
            assert set(relation) == FIELDS, relation["key"]
            assert relation["owner"], relation["key"]
            assert relation["attribute"], relation["key"]
            assert any(relation["pool"] in pools for pools in POOLS), relation["key"]

    def test_is_told_asked_and_changed_in_many_ways(self, relations):
        for relation in relations:
            assert len(relation["tellings"]) >= 15, relation["key"]
            assert len(relation["askings"]) >= 10, relation["key"]
            assert len(relation["corrections"]) >= 3, relation["key"]
            assert len(relation["ended"]) >= 2, relation["key"]

    def test_the_value_stands_once_wherever_it_is_told(self, relations):
        for relation in relations:
            for sentence in [*relation["tellings"], relation["answer"]]:
                assert blanks(sentence) == ["v"], sentence

    def test_a_correction_names_the_new_value_and_at_most_the_old(self, relations):
        for relation in relations:
            for sentence in relation["corrections"]:
                assert blanks(sentence) in (["v"], ["old", "v"]), sentence

    def test_neither_a_question_nor_an_end_gives_the_value_away(self, relations):
        for relation in relations:
            for sentence in relation["askings"]:
                assert blanks(sentence) == [], sentence
            for end in relation["ended"]:
                assert set(end) == {"telling", "answer"}, relation["key"]
                assert {*blanks(end["telling"]), *blanks(end["answer"])} <= {"old"}, end

    def test_no_question_is_asked_twice(self, relations):
        for relation in relations:
            assert not twice(relation["askings"]), relation["key"]


def test_no_telling_is_shared_by_two_relations():
    assert not twice(telling for relation in RELATIONS for telling in relation["tellings"])


def test_a_third_of_the_relations_share_their_attribute_with_another_owner():
    owners = Counter(attribute for attribute, _ in {(r["attribute"], r["owner"]) for r in RELATIONS})
    shared = [relation for relation in RELATIONS if owners[relation["attribute"]] > 1]
    assert len(shared) >= len(RELATIONS) / 3
