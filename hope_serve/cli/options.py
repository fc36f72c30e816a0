"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Target = Annotated[
    str, typer.Option("--target", help="The server, host:port. Default: HOPE_TARGET or 127.0.0.1:50051.")
]
User = Annotated[str, typer.Option("--user", help="Whose memory.")]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait for one answer.", min=0.001, max=86_400.0)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
