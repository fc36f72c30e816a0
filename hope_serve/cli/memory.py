"""``hope-serve memory``: everything about memories but teaching them."""

from __future__ import annotations

from collections.abc import Callable

import typer

from hope_serve.cli.backups import backup, restore
from hope_serve.cli.copies import export_file, fork, import_file, warm
from hope_serve.cli.evaluate import evaluate
from hope_serve.cli.memories import list_memories, rm, rollback, show, versions
from hope_serve.cli.stores import audit, install_functions, move, rotate_keys, upkeep

COMMANDS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("ls", list_memories),
    ("show", show),
    ("versions", versions),
    ("evaluate", evaluate),
    ("rollback", rollback),
    ("fork", fork),
    ("export", export_file),
    ("import", import_file),
    ("warm", warm),
    ("rm", rm),
    ("install-functions", install_functions),
    ("move", move),
    ("rotate-keys", rotate_keys),
    ("upkeep", upkeep),
    ("audit", audit),
    ("backup", backup),
    ("restore", restore),
)

memory = typer.Typer(help="Look at memories, judge, copy, move, turn back and erase them.", no_args_is_help=True)
for name, command in COMMANDS:
    memory.command(name)(command)
