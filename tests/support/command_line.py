"""Commands run in this process."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from hope_serve.cli import main


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


class Commands:
    """Runs commands and collects what they write."""

    def __init__(self, capsys) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Said:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        written = self._capsys.readouterr()
        return Said(ended.value.code or 0, written.out, written.err)
