"""The command line, ``hope-serve``: one file a group of commands. Nothing heavy is imported before it is needed."""

from hope_serve.cli.app import main

__all__ = ["main"]
