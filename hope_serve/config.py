"""The server's one TOML file, the few environment variables, and the flags that go before both."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import quote

import msgspec

from hope_serve.engine_config import EngineConfig, VllmConfig
from hope_serve.identity.config import IdentityConfig, TlsConfig
from hope_serve.identity.limits import NO_LIMITS, Limits
from hope_serve.section import ConfigError, Range, Seconds, Section, expanded, parse_address

__all__ = [
    "BUNDLED_CHECKPOINT",
    "ENVIRONMENT",
    "Config",
    "ConfigError",
    "EngineConfig",
    "IdentityConfig",
    "MemoryConfig",
    "ModelConfig",
    "ServerConfig",
    "TlsConfig",
    "VllmConfig",
    "calm_threads",
    "default_memory_url",
    "default_target",
    "expanded",
    "load_config",
    "memory_key_secret",
    "parse_address",
    "parse_setting",
]

BUNDLED_CHECKPOINT = Path(__file__).parent / "checkpoints" / "hope-demo"

ENVIRONMENT = {
    "HOPE_LISTEN": "server.listen",
    "HOPE_METRICS_LISTEN": "server.metrics_listen",
    "HOPE_HEALTH_LISTEN": "server.health_listen",
    "HOPE_CHECKPOINT": "model.checkpoint",
    "HOPE_MEMORY": "memory.url",
}
"""Variables that replace keys of the file. HOPE_CONFIG names the file itself, HOPE_TARGET the server for clients,
HOPE_MEMORY_KEYS holds the keys of memories as ``id:base64[,id:base64...]``, the current one first."""


class ServerConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The gRPC face. Reflection that is left out is on when callers need no credentials, and off when they do.

    An address that is left out is none: then health is asked for at ``listen`` alone, and so is what needs admin.
    """

    listen: str = "127.0.0.1:50051"
    metrics_listen: str = "127.0.0.1:9464"
    health_listen: str = ""
    admin_listen: str = ""
    insecure: bool = False
    reflection: bool | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    max_message_bytes: Annotated[int, Range(1024, 2**28)] = 2**20
    max_concurrent_calls: Annotated[int, Range(1, 100_000)] = 1024
    max_background_learning: Annotated[int, Range(1, 100_000)] = 256
    burst_seconds: Annotated[float, Range(0.1, 3600.0)] = 10.0
    write_timeout_seconds: Annotated[float, Range(0.01, 3600.0)] = 30.0
    drain_seconds: Seconds = 30.0
    linger_seconds: Annotated[float, Range(0.0, 60.0)] = 1.0
    liveness_seconds: Annotated[float, Range(0.1, 3600.0)] = 30.0
    keepalive_seconds: Annotated[float, Range(1.0, 7200.0)] = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("listen", "metrics_listen", "health_listen", "admin_listen"):
            if name in ("listen", "metrics_listen") or getattr(self, name):
                parse_address(getattr(self, name), name)


class ModelConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which checkpoint is served, and where it runs.

    ``checkpoint``: a folder, or the name of a base that is fetched once. ``part``: a memory part for a converted one;
    left out, it is the one in the folder, or the one that comes with the name.
    """

    checkpoint: Path = BUNDLED_CHECKPOINT
    part: Path | None = None
    device: str = "auto"


class MemoryConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where memories rest, under whose keys, and how many of them. A limit of 0 is no limit.

    An empty url is the default file below the user's data folder; an empty durability is the url's own, or local_fsync.
    """

    url: str = ""
    durability: Literal["", "volatile", "local_fsync", "replicated_fsync"] = ""
    key_file: str = ""
    key_service: str = ""
    keep_versions: Annotated[int, Range(1, 1000)] = 3
    max_user_bytes: Annotated[int, Range(0, 2**50)] = 0
    max_tenant_bytes: Annotated[int, Range(0, 2**50)] = 0
    max_tenant_users: Annotated[int, Range(0, 2**40)] = 0
    max_idle_seconds: Annotated[float, Range(0.0, 3.2e9)] = 0.0
    expiry_grace_seconds: Annotated[float, Range(0.0, 3.2e7)] = 604_800.0
    check_seconds: Annotated[float, Range(0.05, 60.0)] = 2.0
    upkeep_seconds: Annotated[float, Range(0.05, 3.2e7)] = 3600.0
    audit_log: str = ""
    audit_reads: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.key_file and self.key_service:
            raise ValueError(f"key_file {self.key_file} and key_service {self.key_service} are both set; set one")


class TracingConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where spans go, as OTLP over gRPC. An empty endpoint: nowhere."""

    endpoint: str = ""
    sample_share: Annotated[float, Range(0.0, 1.0)] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.endpoint and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError(f"endpoint is {self.endpoint!r}; write http://host:port, or https:// for TLS")


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    server: ServerConfig = msgspec.field(default_factory=ServerConfig)
    model: ModelConfig = msgspec.field(default_factory=ModelConfig)
    engine: EngineConfig = msgspec.field(default_factory=EngineConfig)
    vllm: VllmConfig = msgspec.field(default_factory=VllmConfig)
    memory: MemoryConfig = msgspec.field(default_factory=MemoryConfig)
    tls: TlsConfig = msgspec.field(default_factory=TlsConfig)
    tenant_limits: Limits = NO_LIMITS
    user_limits: Limits = NO_LIMITS
    identity: IdentityConfig = msgspec.field(default_factory=IdentityConfig)
    tracing: TracingConfig = msgspec.field(default_factory=TracingConfig)


def load_config(
    path: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """The configuration: defaults, then the file, then the environment, then ``overrides``.

    Args:
        path: the file; None means the one that HOPE_CONFIG names, or none at all.
        overrides: values by dotted key, such as ``{"server.listen": "0.0.0.0:50051"}``; None values are left out.
        environ: stands in for ``os.environ``.

    Raises:
        ConfigError: naming file, key, value and what is allowed.
    """
    environ = os.environ if environ is None else environ
    path = path or (Path(environ["HOPE_CONFIG"]) if environ.get("HOPE_CONFIG") else None)
    tree = _read(path) if path else {}
    origin = str(path) if path else "configuration"
    _refuse_unknown(tree, Config, origin)
    for variable, key in ENVIRONMENT.items():
        if environ.get(variable):
            _put(tree, key, environ[variable])
    for key, value in (overrides or {}).items():
        if value is not None:
            _put(tree, key, value)
    _refuse_unknown(tree, Config, origin)
    if not tree.get("memory", {}).get("url"):
        _put(tree, "memory.url", default_memory_url(environ))
    try:
        return msgspec.convert(tree, Config, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{origin}: {_explained(error, tree)}") from error


def calm_threads(environ: MutableMapping[str, str] | None = None) -> None:
    """Let OpenMP's threads sleep instead of spin while they wait, and long texts be tokenised by whoever asks.

    Call it before torch is imported. A tokenizer with threads of its own would keep memory in each of them.

    A decode step is hundreds of small products. With every core spinning, one busy neighbour makes each of them wait
    for its turn: on two shared cores a step took 156 ms, and 19 ms with this.
    """
    environ = os.environ if environ is None else environ
    environ.setdefault("GOMP_SPINCOUNT", "100")
    environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def default_memory_url(environ: Mapping[str, str]) -> str:
    """SQLite below XDG_DATA_HOME, or ~/.local/share.

    Raises:
        ConfigError: the account has no home folder.
    """
    if data := environ.get("XDG_DATA_HOME"):
        folder = Path(data).absolute()
    else:
        try:
            folder = expanded("~/.local/share")
        except ConfigError as error:
            raise ConfigError(
                f"{error}, so memories have no default place; name one: --memory sqlite:///path/to/file, or HOPE_MEMORY"
            ) from error
    return f"sqlite://{quote(str(folder / 'hope-serve' / 'memory.db'))}"


def cache_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where fetched models are kept: HOPE_CACHE, or hope-serve below XDG_CACHE_HOME or ~/.cache.

    Raises:
        ConfigError: neither is set, and the account has no home folder.
    """
    environ = os.environ if environ is None else environ
    if environ.get("HOPE_CACHE"):
        return Path(environ["HOPE_CACHE"]).absolute()
    if cache := environ.get("XDG_CACHE_HOME"):
        return Path(cache).absolute() / "hope-serve"
    try:
        return expanded("~/.cache") / "hope-serve"
    except ConfigError as error:
        raise ConfigError(f"{error}, so fetched models have no default place; name one: HOPE_CACHE") from error


def default_target(environ: Mapping[str, str] | None = None) -> str:
    """The server that clients call when none is named."""
    environ = os.environ if environ is None else environ
    return environ.get("HOPE_TARGET") or "127.0.0.1:50051"


def memory_key_secret(environ: Mapping[str, str] | None = None) -> str:
    """The keys of memories, from the environment alone: no file and no process list shows them. Empty: none."""
    environ = os.environ if environ is None else environ
    return environ.get("HOPE_MEMORY_KEYS", "")


def parse_setting(text: str) -> tuple[str, Any]:
    """Key and value of ``section.key=value``; the value as TOML, or as plain text when it is not TOML.

    Raises:
        ConfigError: not of that form.
    """
    key, separator, value = text.partition("=")
    if not separator or key.count(".") != 1:
        raise ConfigError(f"{text!r} is no setting; write section.key=value, such as memory.durability=volatile")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def _refuse_unknown(tree: Mapping[str, Any], section: type[Section], origin: str, prefix: str = "") -> None:
    hints = get_type_hints(section)
    for key, value in tree.items():
        if key not in hints:
            raise ConfigError(f"{origin}: {prefix}{key} is unknown; allowed here: {', '.join(sorted(hints))}")
        if isinstance(hints[key], type) and issubclass(hints[key], Section):
            if not isinstance(value, dict):
                raise ConfigError(f"{origin}: {prefix}{key} is {value!r}; it is a table: write [{prefix}{key}]")
            _refuse_unknown(value, hints[key], origin, f"{prefix}{key}.")


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    section, _, name = key.partition(".")
    tree.setdefault(section, {})[name] = value


def _decode(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str | Path):
        return expanded(value)
    raise ValueError(f"{value!r} is not a {kind.__name__}")


def _explained(error: msgspec.ValidationError, tree: Mapping[str, Any]) -> str:
    message, _, at = str(error).partition(" - at `$")
    section, _, name = at.strip(".`").partition(".")
    if not name:
        return f"{section}.{message}"
    hint = get_type_hints(get_type_hints(Config)[section])[name]
    allowed = f"; choose one of {', '.join(get_args(hint))}" if get_origin(hint) is Literal else ""
    return f"{section}.{name} is {tree[section][name]!r}: {message}{allowed}"
