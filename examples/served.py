"""A server for an example: the one that is named, or one of its own."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hope_serve.cli.server_process import ServerProcess


def options(about: str) -> argparse.ArgumentParser:
    """The options that every example has."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--target", default="", help="a running server, host:port; else one is started")
    parser.add_argument("--checkpoint", default="", help="the model of the server that is started")
    return parser


@contextmanager
def served(target: str = "", checkpoint: str = "") -> Iterator[str]:
    """The address of a server that answers; one that was started here ends with the block, and its store as well."""
    if target:
        yield target
        return
    with tempfile.TemporaryDirectory(prefix="hope-example-") as home:
        log, memory = Path(home) / "log", f"sqlite://{home}/memory.db"
        chosen = {"checkpoint": checkpoint} if checkpoint else {}
        with ServerProcess(memory=memory, log=log, **chosen) as server:
            yield server.target
