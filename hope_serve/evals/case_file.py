"""A stranger's cases: JSON lines, each with what was told, a question, and the answers that are right.

    {"facts": ["We keep bees.", "Otto fixed the gate."], "question": "Who fixed the gate?", "answers": ["Otto"]}

Facts are told in one adaptation, in their order; lines with the same facts ask the same person. An answer is right when
it holds one of ``answers``, in any case; with none, the question was never told and the reply should say so.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from hope_serve.errors import InvalidRequest
from hope_serve.training.lessons.cases import Case, Row, accepting
from hope_serve.training.lessons.judge import abstains, holds_any
from hope_serve.training.lessons.lesson import Adapt, Question


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    facts: tuple[str, ...]
    question: str
    answers: tuple[str, ...]


def load_case_file(path: Path) -> list[Row]:
    """The rows of a file: told and right, told but refused, never told and says so.

    Raises:
        InvalidRequest: naming file, line and what is wrong with it.
    """
    people: dict[tuple[str, ...], list[Question]] = {}
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            read = _read(path, number, line)
            people.setdefault(read.facts, []).append(accepting(read.question, read.answers))
    if not people:
        raise InvalidRequest(str(path), "it holds no cases; write one a line")
    told = [_case(facts, [q for q in asked if q.values]) for facts, asked in people.items()]
    untold = [_case(facts, [q for q in asked if not q.values]) for facts, asked in people.items()]
    rows = [
        Row(name=f"{path.stem}: told", cases=tuple(told), judge=holds_any),
        Row(name=f"{path.stem}: told but refused", cases=tuple(told), judge=abstains, low_is_good=True),
        Row(name=f"{path.stem}: never told, says so", cases=tuple(untold), judge=abstains),
    ]
    return [row for row in rows if any(case.asked for case in row.cases)]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(str(path), f"it cannot be read as UTF-8 text: {error}") from error


def _read(path: Path, number: int, line: str) -> _Line:
    try:
        read = msgspec.json.decode(line, type=_Line)
    except msgspec.DecodeError as error:
        raise InvalidRequest(
            f"{path}:{number}", f'{error}; a line is {{"facts": [...], "question": "...", "answers": [...]}}'
        ) from error
    for name, given in (("facts", read.facts), ("question", (read.question,)), ("answers", read.answers)):
        if not all(text.strip() for text in given):
            raise InvalidRequest(f"{path}:{number}", f"{name} holds an empty text; leave it out or fill it")
    if not read.facts:
        raise InvalidRequest(f"{path}:{number}", "facts is empty; tell at least one")
    return read


def _case(facts: tuple[str, ...], asked: list[Question]) -> Case:
    return Case(adapts=(Adapt(text=" ".join(facts)),), asked=tuple(asked))
