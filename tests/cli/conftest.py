"""The command line as its users meet it: in this process where only words and exit codes matter, else as a process."""

from __future__ import annotations

import pytest
from support.command_line import Commands
from support.tiny_model import write_tiny_checkpoint

from hope_serve.cli.server_process import ServerProcess


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture
def hope(capsys, monkeypatch):
    """``hope("memory", "ls")`` runs a command and gives its exit code and words; the terminal is wide and plain."""
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("NO_COLOR", "1")
    return Commands(capsys)


@pytest.fixture(scope="session")
def target(checkpoint_folder, tmp_path_factory):
    """A server process with the tiny model."""
    home = tmp_path_factory.mktemp("served")
    with ServerProcess(
        checkpoint=str(checkpoint_folder), memory=f"sqlite://{home}/memory.db", log=home / "log", device="cpu"
    ) as server:
        yield server.target
