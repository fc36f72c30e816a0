"""Streams of labelled examples that come class after class: intents of a file, and digits drawn here."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec

from hope_serve.errors import InvalidRequest


class Example(NamedTuple):
    """A text and its label, in words."""

    text: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """One step of a stream: what is taught, and what is asked from then on."""

    taught: tuple[Example, ...]
    tested: tuple[Example, ...]


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Steps in their order, and how a label is asked for; ``{x}`` is the text."""

    name: str
    question: str
    tasks: tuple[Task, ...]


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """Examples of each class that are taught, and tested."""

    taught: int
    tested: int


def intents(path: Path, *, steps: int, classes: int, amounts: Amounts, seed: int) -> Stream:
    """Class-incremental steps of a file in CLINC150's form: ``{"train": [[text, label], ...], "test": [...]}``.

    Raises:
        InvalidRequest: the file is of another form, or has fewer classes or examples than are wanted.
    """
    train, test = _by_label(path, "train"), _by_label(path, "test")
    labels = sorted(label for label in train if label in test)
    if len(labels) < classes:
        raise InvalidRequest(str(path), f"it has {len(labels)} classes, and {classes} are wanted; lower --scale")
    draw = random.Random(seed)  # noqa: S311 - a reproducible draw, nothing secret
    chosen = draw.sample(labels, classes)
    cuts = [classes * step // steps for step in range(steps + 1)]
    tasks = []
    for start, end in pairwise(cuts):
        taught = [
            Example(text, _words(label)) for label in chosen[start:end] for text in train[label][: amounts.taught]
        ]
        tested = [Example(text, _words(label)) for label in chosen[start:end] for text in test[label][: amounts.tested]]
        draw.shuffle(taught)
        tasks.append(Task(taught=tuple(taught), tested=tuple(tested)))
    return Stream(name=f"{path.stem}, {steps} steps", question='What is this about: "{x}"?', tasks=tuple(tasks))


def split_digits(*, amounts: Amounts, seed: int) -> Stream:
    """Two digits a step, drawn as rows of dots and hashes."""
    draw = random.Random(seed)  # noqa: S311 - a reproducible draw, nothing secret
    pairs = [DIGITS[at : at + 2] for at in range(0, 10, 2)]
    same = tuple(range(HEIGHT * WIDTH))
    tasks = tuple(_digit_task(pair, same, amounts, draw) for pair in pairs)
    return Stream(name="split digits", question=_DIGIT_QUESTION, tasks=tasks)


def permuted_digits(*, amounts: Amounts, steps: int, seed: int) -> Stream:
    """All ten digits in every step, their dots in another order in each; the first is the digits' own."""
    draw = random.Random(seed)  # noqa: S311 - a reproducible draw, nothing secret
    orders = [tuple(range(HEIGHT * WIDTH))]
    orders += [tuple(draw.sample(orders[0], len(orders[0]))) for _ in range(steps - 1)]
    tasks = tuple(_digit_task(DIGITS, order, amounts, draw) for order in orders)
    return Stream(name="permuted digits", question=_DIGIT_QUESTION, tasks=tasks)


def _digit_task(digits: Sequence[str], order: Sequence[int], amounts: Amounts, draw: random.Random) -> Task:
    def some(count: int) -> tuple[Example, ...]:
        drawn = [Example(_picture(digit, order, draw), digit) for digit in digits for _ in range(count)]
        draw.shuffle(drawn)
        return tuple(drawn)

    return Task(taught=some(amounts.taught), tested=some(amounts.tested))


def _picture(digit: str, order: Sequence[int], draw: random.Random) -> str:
    """The digit with some dots wrong, row by row."""
    dots = "".join(_GLYPHS[DIGITS.index(digit)])
    seen = [dots[at] if draw.random() >= NOISE else draw.choice("#.") for at in order]
    return " ".join("".join(seen[at : at + WIDTH]) for at in range(0, len(seen), WIDTH))


def _by_label(path: Path, part: str) -> Mapping[str, list[str]]:
    try:
        raw = msgspec.json.decode(path.read_bytes(), type=dict[str, list[tuple[str, str]]])
    except (OSError, msgspec.DecodeError) as error:
        raise InvalidRequest(
            str(path), f'{error}; it must be {{"train": [[text, label], ...], "test": ...}}'
        ) from error
    if part not in raw:
        raise InvalidRequest(str(path), f"it has no {part!r}; give train and test")
    found: dict[str, list[str]] = defaultdict(list)
    for text, label in raw[part]:
        found[label].append(text)
    return found


def _words(label: str) -> str:
    return label.replace("_", " ")


HEIGHT, WIDTH, NOISE = 7, 5, 0.06
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DIGIT_QUESTION = "Which digit is this: {x} ?"
_GLYPHS = tuple(
    tuple(glyph.split())
    for glyph in (
        ".###. #...# #..## #.#.# ##..# #...# .###.",
        "..#.. .##.. ..#.. ..#.. ..#.. ..#.. .###.",
        ".###. #...# ....# ...#. ..#.. .#... #####",
        "##### ...#. ..#.. ...#. ....# #...# .###.",
        "...#. ..##. .#.#. #..#. ##### ...#. ...#.",
        "##### #.... ####. ....# ....# #...# .###.",
        "..##. .#... #.... ####. #...# #...# .###.",
        "##### ....# ...#. ..#.. .#... .#... .#...",
        ".###. #...# #...# .###. #...# #...# .###.",
        ".###. #...# #...# .#### ....# ...#. .##..",
    )
)
