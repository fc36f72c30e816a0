"""``hope-serve serve``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hope_serve.config import Config, ConfigError, calm_threads, load_config, parse_setting
from hope_serve.memory.url_parts import split_url

if TYPE_CHECKING:
    from hope_serve.server.serve import Running


def serve(
    config: Annotated[
        Path | None, typer.Option(help="The TOML file. Default: HOPE_CONFIG, or built-in values.")
    ] = None,
    listen: Annotated[str | None, typer.Option(help="Address for gRPC, host:port.")] = None,
    metrics_listen: Annotated[str | None, typer.Option(help="Address for Prometheus, host:port.")] = None,
    insecure: Annotated[
        bool | None,
        typer.Option("--insecure", help="Listen where others reach it without TLS, or without asking who calls."),
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Folder of the model; or hope-smollm2, or hope-demo.")] = None,
    part: Annotated[Path | None, typer.Option(help="A memory part, for a converted model.")] = None,
    memory: Annotated[
        str | None, typer.Option(help="Where memories rest: sqlite:///absolute/path or redis://host:port.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, … Default: cuda if there is one.")] = None,
    deterministic: Annotated[
        bool | None, typer.Option(help="A user's output does not depend on neighbours, to the bit.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any other key of the file: section.key=value. May be repeated.")
    ] = None,
) -> None:
    """Serve a checkpoint until SIGTERM or Ctrl-C."""
    flags = {
        "server.listen": listen,
        "server.metrics_listen": metrics_listen,
        "server.insecure": insecure,
        "model.checkpoint": checkpoint,
        "model.part": part,
        "memory.url": memory,
        "model.device": device,
        "engine.deterministic": deterministic,
    }
    given = {key: value for key, value in flags.items() if value is not None}
    settings = load_config(config, dict(map(parse_setting, set_ or [])) | given)
    calm_threads()
    from hope_serve.model.checkpoint import CheckpointError
    from hope_serve.server.serve import run

    try:
        run(settings, lambda running: _announce(settings, running))
    except CheckpointError as error:
        raise ConfigError(f"model.checkpoint {settings.model.checkpoint}: {error}") from error


def _announce(config: Config, running: Running) -> None:
    host = config.server.listen.rpartition(":")[0]
    metrics_host = config.server.metrics_listen.rpartition(":")[0]
    scheme = "https" if config.tls.enabled and config.tls.metrics else "http"
    info = running.service.info
    typer.echo(
        f"{info.name} ({info.num_parameters:,} parameters, {info.device}) listens on {host}:{running.port}; "
        f"metrics on {scheme}://{metrics_host}:{running.metrics_port}/metrics; "
        f"memories in {split_url(config.memory.url).place}"
    )
    sys.stdout.flush()
