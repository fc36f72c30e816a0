"""A checkpoint on disk: a folder whose every byte is accounted for before a tensor is allocated.

config.json, model.safetensors, tokenizer.json, SHA256SUMS over the three, and README.md, the model card.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from safetensors.torch import save_file

from hope_serve.model.config import HopeConfig
from hope_serve.model.hope import HopeModel
from hope_serve.model.weights import WeightsError, check_weights, read_weights, stored_dtype
from hope_serve.tokenizer import Tokenizer, TokenizerError

CONFIG, WEIGHTS, TOKENIZER, SUMS, CARD = "config.json", "model.safetensors", "tokenizer.json", "SHA256SUMS", "README.md"
_SUMMED = (CONFIG, WEIGHTS, TOKENIZER)
_SUM_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
MAX_SMALL_BYTES = 2**20
"""Of config.json and SHA256SUMS."""


class CheckpointError(ValueError):
    """The folder is not a checkpoint of this format; the message names the file or tensor and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model ready to run. ``fingerprint``: sha256 over the config's, weights' and tokenizer's sums."""

    config: HopeConfig
    model: HopeModel
    tokenizer_path: Path
    fingerprint: str

    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return Tokenizer.load(self.tokenizer_path)


def load_checkpoint(folder: Path, *, device: str = "cpu") -> Checkpoint:
    """Read and check a checkpoint; parameters come back as float32, frozen.

    Raises:
        CheckpointError: a file is missing or altered, or a tensor is not what the config says.
    """
    sums = _checked_sums(folder)
    config = _read_config(folder / CONFIG)
    _check_tokenizer(folder / TOKENIZER, config)
    with _as_checkpoint_errors():
        tensors = read_weights(folder / WEIGHTS, config)
    with torch.device("meta"):
        model = HopeModel(config)
    model.load_state_dict(tensors, assign=True)
    return Checkpoint(
        config=config,
        model=model.to(device).freeze(),
        tokenizer_path=folder / TOKENIZER,
        fingerprint=_fingerprint(sums),
    )


def save_checkpoint(folder: Path, model: HopeModel, *, tokenizer: bytes, card: str) -> str:
    """Write a checkpoint and return its fingerprint."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    state = {name: t.detach().to("cpu", stored_dtype(t, config)).contiguous() for name, t in model.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    (folder / CONFIG).write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n")
    (folder / TOKENIZER).write_bytes(tokenizer)
    (folder / CARD).write_text(card)
    sums = {name: _sha256(folder / name) for name in _SUMMED}
    (folder / SUMS).write_text("".join(f"{value}  {name}\n" for name, value in sums.items()))
    return _fingerprint(sums)


def planned_config(folder: Path) -> HopeConfig:
    """The config, once the header of the weights has agreed with it; no weight is read and no sum is checked.

    Raises:
        CheckpointError: a file is missing, or names, shapes and dtypes of the weights are not those of the config.
    """
    _require(folder, (CONFIG, WEIGHTS))
    config = _read_config(folder / CONFIG)
    with _as_checkpoint_errors():
        check_weights(folder / WEIGHTS, config)
    return config


def _read_config(path: Path) -> HopeConfig:
    try:
        return msgspec.json.decode(_small(path), type=HopeConfig)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name}: {error}") from error


def _check_tokenizer(path: Path, config: HopeConfig) -> None:
    with _as_checkpoint_errors():
        size = Tokenizer.load(path).vocab_size
    if size > config.vocab_size:
        raise CheckpointError(
            f"{TOKENIZER} has ids up to {size - 1}, and vocab_size in {CONFIG} is {config.vocab_size}: the model knows "
            "no such tokens; put the model's own tokenizer there"
        )


@contextmanager
def _as_checkpoint_errors() -> Iterator[None]:
    try:
        yield
    except (WeightsError, TokenizerError) as error:
        raise CheckpointError(str(error)) from error


def _require(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} has no {name}; a checkpoint folder holds {', '.join((*_SUMMED, SUMS))}")


def _checked_sums(folder: Path) -> dict[str, str]:
    _require(folder, (*_SUMMED, SUMS))
    stated = _read_sums(folder / SUMS)
    actual = {name: _sha256(folder / name) for name in _SUMMED}
    for name, value in actual.items():
        if stated.get(name) != value:
            raise CheckpointError(
                f"{name} has sha256 {value}, but {SUMS} says {stated.get(name, 'nothing')}: "
                "the file was altered or only partly copied; fetch the checkpoint again"
            )
    return actual


def _read_sums(path: Path) -> dict[str, str]:
    """As sha256sum writes them."""
    stated: dict[str, str] = {}
    for number, line in enumerate(_small(path).decode(errors="replace").splitlines(), 1):
        found = _SUM_LINE.fullmatch(line)
        if found is None or found[2] in stated:
            problem = "no sum and name, as sha256sum writes them" if found is None else f"a second sum of {found[2]}"
            raise CheckpointError(f"{SUMS}: line {number} is {line[:100]!r}, {problem}; fetch the checkpoint again")
        stated[found[2]] = found[1]
    return stated


def _small(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SMALL_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}") from error
    if len(content) > MAX_SMALL_BYTES:
        raise CheckpointError(f"{path.name} is larger than {MAX_SMALL_BYTES} bytes: it is no such file")
    return content


def _fingerprint(sums: dict[str, str]) -> str:
    return hashlib.sha256("".join(sums[name] for name in _SUMMED).encode()).hexdigest()


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}") from error
