"""Scenes: small everyday happenings in a person's own words, and what somebody would ask about them later.

A relation (``relations``) is one attribute with many wordings; a scene is one of very many things that happen, with
few. They are text files in ``scenes/``, a blank line between two scenes::

    x = lawnmower / kayak / drill          a slot and its values, or ``@pool``
    n = @man_name
    T: I swapped my {x} for {n}'s ladder.  a telling; every telling holds every slot
    T: {n} gave me his ladder for the {x}.
    Q: Who has my {x} now? | {n} has it.   a question and its answer, which holds a slot that the question does not
    C n: Not {old}, it was {n} who took it. told later: the slot's new value, maybe the old one and other slots
    E: The ladder broke. | Have I still got the ladder? | No, it broke.   told later, what is asked then, and the answer
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import NamedTuple

from hope_serve.training.lessons.relations import load_values

SCENES_ONE_IN = 10
OLD = "old"
_SLOT = re.compile(r"\{([a-z]|old)\}")
_WHETHER = re.compile(
    r"(do|does|did|is|are|am|was|were|has|have|had|can|could|may|must|shall|should|will|would)\b", re.IGNORECASE
)


class Asking(NamedTuple):
    """A question and its answer, with slots."""

    question: str
    answer: str


class Change(NamedTuple):
    """A later telling, after which ``slot`` has another value."""

    slot: str
    telling: str


class Ending(NamedTuple):
    """A later telling, after which the matter is over; what is asked then, and the answer."""

    telling: str
    question: str
    answer: str

    @property
    def asks_whether(self) -> bool:
        """Whether yes or no is asked for, so that a guess is right half of the time."""
        return bool(_WHETHER.match(self.question))


@dataclass(frozen=True, kw_only=True)
class Scene:
    """slots: the values of each; the rest: texts with ``{slot}`` in them."""

    slots: Mapping[str, tuple[str, ...]]
    tellings: tuple[str, ...]
    askings: tuple[Asking, ...]
    changes: tuple[Change, ...] = ()
    endings: tuple[Ending, ...] = ()

    @property
    def held_out(self) -> bool:
        """Whether no lesson of training tells it."""
        return zlib.crc32(self.tellings[0].lower().encode()) % SCENES_ONE_IN == 0


@cache
def load_scenes() -> tuple[Scene, ...]:
    """Every scene of this room's files.

    Raises:
        ValueError: a line or a scene is not of the form above; the message names the file and the scene.
    """
    pools = load_values()
    folder = files("hope_serve.training.lessons").joinpath("scenes")
    found = []
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        for number, block in enumerate(re.split(r"\n\s*\n", file.read_text("utf-8").strip()), 1):
            try:
                found.append(parse_scene(block, pools))
            except ValueError as error:
                raise ValueError(f"{file.name}, scene {number}: {error}") from error
    return tuple(found)


def parse_scene(block: str, pools: Mapping[str, tuple[str, ...]]) -> Scene:
    """One scene from its lines.

    Raises:
        ValueError: a line of no known form, a pool that is not there, too few tellings, questions or values, a slot
            that is missing in a telling, an answer without a slot or with one that its question gives away, a change
            that no question asks for.
    """
    slots: dict[str, tuple[str, ...]] = {}
    tellings: list[str] = []
    askings: list[Asking] = []
    changes: list[Change] = []
    endings: list[Ending] = []
    for line in block.split("\n"):
        if match := re.fullmatch(r"([a-z]) = (.+)", line):
            slots[match[1]] = _values(match[2].strip(), pools)
        elif line.startswith("T: "):
            tellings.append(line[3:])
        elif line.startswith("Q: ") and line.count(" | ") == 1:
            askings.append(Asking(*line[3:].split(" | ")))
        elif match := re.fullmatch(r"C ([a-z]): (.+)", line):
            changes.append(Change(match[1], match[2]))
        elif line.startswith("E: ") and line.count(" | ") == 2:
            endings.append(Ending(*line[3:].split(" | ")))
        else:
            raise ValueError(
                f"{line!r} is none of 'x = values', 'T: telling', 'Q: question | answer', 'C x: change' and "
                "'E: ending | question | answer'"
            )
    _check(slots, tellings, askings)
    _check_later(slots, askings, changes, endings)
    return Scene(
        slots=MappingProxyType(slots),
        tellings=tuple(tellings),
        askings=tuple(askings),
        changes=tuple(changes),
        endings=tuple(endings),
    )


def _values(text: str, pools: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    if not text.startswith("@"):
        return tuple(value.strip() for value in text.split(" / "))
    if text[1:] not in pools:
        raise ValueError(f"no pools_*.json holds the pool {text[1:]!r}")
    return pools[text[1:]]


def _check(slots: Mapping[str, tuple[str, ...]], tellings: Sequence[str], askings: Sequence[Asking]) -> None:
    if len(tellings) < 2 or len(askings) < 2:
        raise ValueError(f"it has {len(tellings)} tellings and {len(askings)} questions; two of each at least")
    for slot, values in slots.items():
        if len(set(values)) < 6 or "" in values:
            raise ValueError(f"slot {slot} has {len(set(values))} different values; six at least, none of them empty")
    for text in tellings:
        if set(slots_of(text)) != set(slots):
            raise ValueError(f"the telling {text!r} does not hold exactly the slots {sorted(slots)}")
    for question, answer in askings:
        given, wanted = set(slots_of(question)), set(slots_of(answer))
        if not wanted or wanted & given or (wanted | given) - set(slots):
            raise ValueError(f"the answer {answer!r} must hold a slot of the scene that {question!r} does not")


def _check_later(
    slots: Mapping[str, tuple[str, ...]],
    askings: Sequence[Asking],
    changes: Sequence[Change],
    endings: Sequence[Ending],
) -> None:
    answered = {slot for asking in askings for slot in slots_of(asking.answer)}
    for slot, text in changes:
        found = set(slots_of(text))
        if slot not in found or found - set(slots) - {OLD}:
            raise ValueError(
                f"the change {text!r} must hold the new {{{slot}}}, and besides it {{old}} and slots alone"
            )
        if slot not in answered:
            raise ValueError(f"no question asks for {slot}, which {text!r} changes")
    for ending in endings:
        if unknown := set(slots_of(" ".join(ending))) - set(slots):
            raise ValueError(f"the ending {ending.telling!r} holds {{{min(unknown)}}}, which the scene has not")


def slots_of(text: str) -> list[str]:
    """The slots that a text holds, in order."""
    return _SLOT.findall(text)


def filled(text: str, values: Mapping[str, str]) -> str:
    """The text with its values, a capital at the start if a value brought it there."""
    done = _SLOT.sub(lambda match: values[match[1]], text)
    return done[:1].upper() + done[1:] if text.startswith("{") else done
