"""The commands together, and what their failures look like.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, value or configuration, 3 no server there. A server ends with
70 when its engine has failed, and with 130 at a second signal.
"""

from __future__ import annotations

from collections.abc import Sequence

import typer
from rich.console import Console

import hope_serve
from hope_serve.cli.adapt import adapt
from hope_serve.cli.bench import bench
from hope_serve.cli.chat import chat
from hope_serve.cli.convert import convert, fetch
from hope_serve.cli.demo import demo
from hope_serve.cli.doctor import doctor
from hope_serve.cli.evals import evals
from hope_serve.cli.key import key
from hope_serve.cli.memory import memory
from hope_serve.cli.serve import serve
from hope_serve.cli.top import top
from hope_serve.cli.training import train
from hope_serve.config import ConfigError
from hope_serve.errors import HopeError, InvalidRequest, Unavailable

FAILED, WRONG, UNREACHABLE = 1, 2, 3

app = typer.Typer(
    help="HOPE models with a memory for every user.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (serve, top, chat, adapt, train, convert, fetch, bench, doctor, demo):
    app.command()(command)
app.add_typer(evals, name="eval")
app.add_typer(memory, name="memory")
app.add_typer(key, name="key")


@app.callback(invoke_without_command=True)
def version(
    show: bool = typer.Option(False, "--version", help="Print the release and end.", is_eager=True),
) -> None:
    """HOPE models with a memory for every user."""
    if show:
        typer.echo(hope_serve.__version__)
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code."""
    try:
        app(arguments)
    except (ConfigError, HopeError) as error:
        reason = f" ({error.reason})" if isinstance(error, HopeError) else ""
        if isinstance(error, Unavailable) and error.reason == "UNREACHABLE":
            reason += "; start one with `hope-serve serve`, or name another with --target"
        Console(stderr=True).print(f"error: {error}{reason}", style="red", markup=False, soft_wrap=True)
        raise SystemExit(_exit_code(error)) from error


def _exit_code(error: ConfigError | HopeError) -> int:
    if isinstance(error, ConfigError | InvalidRequest):
        return WRONG
    return UNREACHABLE if isinstance(error, Unavailable) else FAILED
