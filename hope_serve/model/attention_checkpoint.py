"""A checkpoint of the attention kind on disk: a folder whose every byte is accounted for before a tensor is allocated.

config.json, model.safetensors, tokenizer.json, chat_template.jinja, SHA256SUMS over these, and README.md, the card.
Tensors: embedding [V, d], head [V, d] unless tied, norm [d], and for layer i ``i.FIELD`` of ``LayerWeights``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hope_serve.model.attention import AttentionShape, AttentionWeights, LayerWeights

SCHEMA_VERSION = 1
CONFIG, WEIGHTS, TOKENIZER, TEMPLATE = "config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"
SUMS, CARD = "SHA256SUMS", "README.md"
SUMMED = (CONFIG, WEIGHTS, TOKENIZER, TEMPLATE)
Dtype = Literal["float32", "float16", "bfloat16"]
_HEADER_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


class AttentionCheckpointError(ValueError):
    """The folder is not a checkpoint of the attention kind; the message names the file or tensor and the remedy."""


class SourceNote(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the weights are from. ``fingerprint`` is what memory parts name."""

    name: str
    licence: str
    fingerprint: str


class AttentionConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model of softmax attention and SwiGLU levels, as ``config.json`` states it."""

    name: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_key_heads: int
    head_size: int
    wide_size: int
    norm_eps: float
    inverse_frequencies: tuple[float, ...]
    biases: bool
    tied: bool
    max_context_tokens: int
    stop_tokens: tuple[int, ...]
    source: SourceNote
    bos_token: str = ""
    eos_token: str = ""
    dtype: Dtype = "float32"
    layers: Literal["attention"] = "attention"
    schema: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.schema != SCHEMA_VERSION:
            raise ValueError(f"schema is {self.schema}; this release reads {SCHEMA_VERSION}")
        for field in ("vocab_size", "hidden_size", "num_layers", "num_heads", "wide_size", "max_context_tokens"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}; it must be at least 1")
        for token in self.stop_tokens:
            if not 0 <= token < self.vocab_size:
                raise ValueError(f"stop_tokens holds {token}; ids go from 0 to {self.vocab_size - 1}")
        self.shape()

    def shape(self) -> AttentionShape:
        """The dimensions as the passes take them."""
        return AttentionShape(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            num_key_heads=self.num_key_heads,
            head_size=self.head_size,
            wide_size=self.wide_size,
            norm_eps=self.norm_eps,
            inverse_frequencies=self.inverse_frequencies,
        )


@dataclass(frozen=True, kw_only=True)
class AttentionCheckpoint:
    """A model ready to run. ``fingerprint``: sha256 over the sums of its files."""

    config: AttentionConfig
    weights: AttentionWeights
    tokenizer_path: Path
    chat_template: str
    fingerprint: str


def expected_tensors(config: AttentionConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor by name."""
    d, wide = config.hidden_size, config.wide_size
    heads = (config.num_heads + 2 * config.num_key_heads) * config.head_size
    table: dict[str, tuple[int, ...]] = {"embedding": (config.vocab_size, d), "norm": (d,)}
    if not config.tied:
        table["head"] = (config.vocab_size, d)
    layer = {
        "attention_norm": (d,),
        "query_key_value": (heads, d),
        "output": (d, config.num_heads * config.head_size),
        "mlp_norm": (d,),
        "gate_up": (2 * wide, d),
        "down": (d, wide),
    } | ({"bias": (heads,)} if config.biases else {})
    return table | {f"{i}.{name}": size for i in range(config.num_layers) for name, size in layer.items()}


def stored_bytes(config: AttentionConfig) -> int:
    """What the weights take on disk."""
    sizes = expected_tensors(config).values()
    wide = 4 if config.dtype == "float32" else 2
    return sum(torch.Size(size).numel() * (4 if len(size) == 1 else wide) for size in sizes)


def save_attention_checkpoint(
    folder: Path,
    config: AttentionConfig,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    tokenizer: bytes,
    chat_template: str,
    card: str,
) -> str:
    """Write a checkpoint and return its fingerprint; vectors are kept in 32 bit, matrices as the config says."""
    dtype: torch.dtype = getattr(torch, config.dtype)
    kept = {n: t.detach().to("cpu", torch.float32 if t.dim() == 1 else dtype).contiguous() for n, t in tensors}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(kept, folder / WEIGHTS)
    (folder / CONFIG).write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n")
    (folder / TOKENIZER).write_bytes(tokenizer)
    (folder / TEMPLATE).write_text(chat_template, "utf-8")
    (folder / CARD).write_text(card, "utf-8")
    sums = {name: _sha256(folder / name) for name in SUMMED}
    (folder / SUMS).write_text("".join(f"{value}  {name}\n" for name, value in sums.items()))
    return _fingerprint(sums)


def load_attention_checkpoint(folder: Path) -> AttentionCheckpoint:
    """Read and check a checkpoint; weights come back as float32, layers stacked.

    Raises:
        AttentionCheckpointError: a file is missing or altered, or a tensor is not what the config says.
    """
    sums = _checked_sums(folder)
    config = read_attention_config(folder / CONFIG)
    return AttentionCheckpoint(
        config=config,
        weights=_read_weights(folder / WEIGHTS, config),
        tokenizer_path=folder / TOKENIZER,
        chat_template=(folder / TEMPLATE).read_text("utf-8"),
        fingerprint=_fingerprint(sums),
    )


def read_attention_config(path: Path) -> AttentionConfig:
    """Parse ``config.json``.

    Raises:
        AttentionCheckpointError: not JSON, an unknown key, or a value that is not allowed.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=AttentionConfig)
    except (msgspec.DecodeError, ValueError) as error:
        raise AttentionCheckpointError(f"{path.name}: {error}") from error


def planned_attention_config(folder: Path) -> AttentionConfig:
    """The config, once the header of the weights has agreed with it; no weight is read and no sum is checked.

    Raises:
        AttentionCheckpointError: a file is missing, or the weights are not those of the config.
    """
    _require(folder, (CONFIG, WEIGHTS))
    config = read_attention_config(folder / CONFIG)
    with _opened(folder / WEIGHTS) as file:
        _check_header(file, expected_tensors(config), config)
    return config


def planned_weights(config: AttentionConfig) -> AttentionWeights:
    """Weights of the config's sizes, without numbers."""
    sizes = expected_tensors(config)
    return _stacked({name: torch.empty(size, device="meta") for name, size in sizes.items()}, config)


def _require(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if not (folder / name).is_file():
            raise AttentionCheckpointError(
                f"{folder} has no {name}; a checkpoint of this kind holds {', '.join((*SUMMED, SUMS))}"
            )


def _checked_sums(folder: Path) -> dict[str, str]:
    _require(folder, (*SUMMED, SUMS))
    lines = (folder / SUMS).read_text(errors="replace").splitlines()
    stated = {name: value for value, _, name in (line.partition("  ") for line in lines)}
    actual = {name: _sha256(folder / name) for name in SUMMED}
    for name, value in actual.items():
        if stated.get(name) != value:
            raise AttentionCheckpointError(
                f"{name} has sha256 {value}, but {SUMS} says {stated.get(name, 'nothing')}: "
                "the file was altered or only partly copied; convert or copy the checkpoint again"
            )
    return actual


def _read_weights(path: Path, config: AttentionConfig) -> AttentionWeights:
    expected = expected_tensors(config)
    with _opened(path) as file:
        _check_header(file, expected, config)
        read = {name: file.get_tensor(name).float() for name in expected}
    for name, tensor in read.items():
        if not torch.isfinite(tensor).all():
            raise AttentionCheckpointError(f"{path.name}: tensor {name} holds NaN or infinity; convert it again")
    return _stacked(read, config)


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise AttentionCheckpointError(f"{path.name} is not a safetensors file ({error}); convert it again") from error


def _stacked(read: dict[str, Tensor], config: AttentionConfig) -> AttentionWeights:
    fields = [name for name in LayerWeights._fields if f"0.{name}" in read]
    stacked = {name: torch.stack([read[f"{i}.{name}"] for i in range(config.num_layers)]) for name in fields}
    embedding = read["embedding"]
    return AttentionWeights(
        embedding, embedding if config.tied else read["head"], read["norm"], LayerWeights(**stacked)
    )


def _check_header(file: safe_open, expected: dict[str, tuple[int, ...]], config: AttentionConfig) -> None:
    names = set(file.keys())  # type: ignore[no-untyped-call]
    for problem, odd in (("lacks", expected.keys() - names), ("has the unknown", names - expected.keys())):
        if odd:
            raise AttentionCheckpointError(f"{WEIGHTS} {problem} tensor {min(odd)}, going by {CONFIG}")
    for name, size in expected.items():
        piece = file.get_slice(name)  # type: ignore[no-untyped-call]
        wanted = "F32" if len(size) == 1 else _HEADER_NAMES[config.dtype]
        if tuple(piece.get_shape()) != size or piece.get_dtype() != wanted:
            raise AttentionCheckpointError(
                f"{WEIGHTS}: tensor {name} is {piece.get_dtype()} {piece.get_shape()}; "
                f"{CONFIG} makes it {wanted} {list(size)}"
            )


def _fingerprint(sums: dict[str, str]) -> str:
    return hashlib.sha256("".join(sums[name] for name in SUMMED).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
