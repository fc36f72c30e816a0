"""The relations that people have to things, their wordings and values, and the three ways in which some are held out.

Held out of training are whole relations (by a hash of their attribute, so that every owner of it goes with them), the
last wordings of every relation, and values (by a hash of their spelling).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType
from typing import Any

from hope_serve.training.personas import Split, is_held_out, load_pools

RELATIONS_ONE_IN = 8
_ROOM = "hope_serve.training.lessons"
_COMMON = frozenset({"favourite", "place", "name", "day", "for", "usual"})
"""Words of attributes that have nothing else in common."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a relation ends: told with {old}, and what is true from then on."""

    telling: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Relation:
    """What an owner has: wordings with {v} (corrections also {old}), questions, and the answer with {v}."""

    key: str
    owner: str
    attribute: str
    pool: str
    tellings: tuple[str, ...]
    askings: tuple[str, ...]
    answer: str
    corrections: tuple[str, ...]
    ended: tuple[Ending, ...]

    @property
    def held_out(self) -> bool:
        """Whether no lesson of training is about it."""
        return zlib.crc32(self.attribute.lower().encode()) % RELATIONS_ONE_IN == 0

    def clashes(self, other: Relation) -> bool:
        """Whether knowing one may answer a question about the other."""
        return self.key == other.key or (_words(self.owner) == _words(other.owner) and bool(self._topic & other._topic))

    @property
    def _topic(self) -> frozenset[str]:
        return _words(self.attribute) - _COMMON


def wordings(texts: tuple[Any, ...], split: Split) -> tuple[Any, ...]:
    """The wordings on one side of the split: the last ones are held out, two of eight or more, one of two or more."""
    count = 2 if len(texts) >= 8 else 1 if len(texts) >= 2 else 0
    held = texts[len(texts) - count :]
    return (held or texts) if split is Split.HELD_OUT else texts[: len(texts) - count]


def load_relations() -> tuple[Relation, ...]:
    """Every relation of this room's files.

    Raises:
        ValueError: a relation names a pool that no file holds.
    """
    folder = files(_ROOM).joinpath("relations")
    found = [_relation(raw) for file in _json_files(folder) for raw in json.loads(file.read_text("utf-8"))]
    pools = load_values()
    for relation in found:
        if relation.pool not in pools:
            raise ValueError(f"relation {relation.key} names the pool {relation.pool!r}, and no pools_*.json holds it")
    return tuple(found)


def load_values() -> Mapping[str, tuple[str, ...]]:
    """Values of every pool; files that name the same pool add to it. Those of ``personas`` are called "older …"."""
    pools: dict[str, dict[str, None]] = {}
    for file in _json_files(files(_ROOM)):
        if file.name.startswith("pools_"):
            for name, values in json.loads(file.read_text("utf-8")).items():
                pools.setdefault(name, {}).update(dict.fromkeys(values))
    for name, words in load_pools().items():
        pools.setdefault(f"older {name}", {}).update(dict.fromkeys(words))
    return MappingProxyType({name: tuple(values) for name, values in pools.items()})


def side(values: tuple[str, ...], split: Split) -> tuple[str, ...]:
    """The values on one side of the split."""
    return tuple(value for value in values if is_held_out(value) == (split is Split.HELD_OUT))


def _json_files(folder: Traversable) -> list[Traversable]:
    if not folder.is_dir():
        return []
    return sorted((file for file in folder.iterdir() if file.name.endswith(".json")), key=lambda file: file.name)


def _relation(raw: Mapping[str, Any]) -> Relation:
    return Relation(
        key=raw["key"],
        owner=raw["owner"],
        attribute=raw["attribute"],
        pool=raw["pool"],
        tellings=tuple(raw["tellings"]),
        askings=tuple(raw["askings"]),
        answer=raw["answer"],
        corrections=tuple(raw["corrections"]),
        ended=tuple(Ending(telling=one["telling"], answer=one["answer"]) for one in raw["ended"]),
    )


def _words(text: str) -> frozenset[str]:
    return frozenset(text.lower().replace("'s", "").split()) - {"my", "me", "our", "the", "a", "an", "of", "i"}
