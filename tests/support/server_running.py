"""A whole server in this process: tiny checkpoint, SQLite, engine, gRPC and metrics ports."""

from __future__ import annotations

from pathlib import Path

import msgspec

from hope_serve.client import AsyncHopeClient
from hope_serve.client.channel import ChannelOptions
from hope_serve.config import (
    Config,
    EngineConfig,
    IdentityConfig,
    MemoryConfig,
    ModelConfig,
    ServerConfig,
    TlsConfig,
    VllmConfig,
)
from hope_serve.identity.limits import Limits


def server_config(checkpoint: Path, folder: Path, **changes) -> Config:
    """A configuration on free ports; keys of ``changes`` are those of [server], [engine] and [memory].

    ``tls``, ``identity``, ``vllm``, ``tenant_limits`` and ``user_limits`` are these whole tables.
    """
    server = {"listen": "127.0.0.1:0", "metrics_listen": "127.0.0.1:0", "log_level": "error", "drain_seconds": 10.0}
    engine = {"max_slots": 8, "max_batch_tokens": 256, "max_prompt_tokens": 2048, "max_adapt_tokens": 2048}
    memory = {"url": f"sqlite://{folder}/memory.db"}
    tls, identity, vllm = (changes.pop(name, {}) for name in ("tls", "identity", "vllm"))
    limits = {name: Limits(**changes.pop(name, {})) for name in ("tenant_limits", "user_limits")}
    for key, value in changes.items():
        section = next(
            table
            for table, kind in ((server, ServerConfig), (memory, MemoryConfig), (engine, EngineConfig))
            if key in kind.__struct_fields__
        )
        section[key] = value
    return Config(
        server=msgspec.convert(server, ServerConfig),
        engine=msgspec.convert(engine, EngineConfig),
        model=ModelConfig(checkpoint=checkpoint, device="cpu"),
        memory=msgspec.convert(memory, MemoryConfig),
        vllm=msgspec.convert(vllm, VllmConfig),
        **limits,
        tls=msgspec.convert(tls, TlsConfig),
        identity=msgspec.convert({"reload_seconds": 0.05} | identity, IdentityConfig),
    )


def connect(server, **options) -> AsyncHopeClient:
    """A client that shows every refusal at once; ``options`` are those of ``ChannelOptions``."""
    given = {"timeout_seconds": 30, "retries": False} | options
    return AsyncHopeClient(f"127.0.0.1:{server.port}", ChannelOptions(**given))
