"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

UserId = Annotated[str, typer.Argument(metavar="USER", help="Whose memory.")]
User = Annotated[str, typer.Option("--user", help="Whose memory.")]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait for one answer.", min=0.001, max=86_400.0)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
Version = Annotated[int | None, typer.Option("--version", help="Default: the newest.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="Holds the file's passphrase on its first line; - asks for it."),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="The server's TOML file, for its store, keys and limits.")
]
StoreUrl = Annotated[str | None, typer.Option("--memory", help="The store, instead of the configured one.")]
