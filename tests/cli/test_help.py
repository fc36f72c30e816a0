"""Every command explains itself, and nothing heavy is loaded to do so."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
import typer

import hope_serve
from hope_serve.cli.app import app


def commands(group=None, path=()):
    """The path of every command, groups included."""
    group = group or typer.main.get_command(app)
    yield path
    for name, command in group.commands.items():
        if isinstance(command, click.Group) or hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


@pytest.mark.parametrize("path", list(commands()), ids=lambda path: " ".join(path) or "hope-serve")
def test_every_command_and_every_option_explains_itself(hope, path):
    command = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
    said = hope(*path, "--help")
    assert said.code == 0
    assert command.help.strip().splitlines()[0] in said.out
    for parameter in command.params:
        assert parameter.help, f"{parameter.name} says nothing of itself"
        for option in (name for name in parameter.opts if name.startswith("--")):
            assert option in said.out


def test_the_commands_of_the_contract_are_there():
    paths = set(commands())
    for name in ("serve", "chat", "adapt", "bench", "train", "convert", "fetch", "eval", "doctor", "demo"):
        assert (name,) in paths
    for name in ("ls", "show", "versions", "rollback", "rm"):
        assert ("memory", name) in paths


def test_the_release_is_printed(hope):
    said = hope("--version")
    assert (said.code, said.out.strip()) == (0, hope_serve.__version__)


@pytest.mark.parametrize("arguments", [("dream",), ("serve", "--colour"), ("chat", "extra"), ("memory", "dream")])
def test_a_mistyped_command_is_wrong_usage(hope, arguments):
    said = hope(*arguments)
    assert said.code == 2
    assert arguments[-1] in said.err


def test_help_loads_neither_torch_nor_grpc():
    code = (
        "import sys; from hope_serve.cli import main\n"
        "try: main(['serve', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'grpc', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
