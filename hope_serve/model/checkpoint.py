"""A checkpoint on disk: a folder whose every byte is accounted for before a tensor is allocated.

config.json, model.safetensors, tokenizer.json, SHA256SUMS over the three, and README.md, the model card.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hope_serve.model.config import HopeConfig
from hope_serve.model.hope import HopeModel

CONFIG, WEIGHTS, TOKENIZER, SUMS, CARD = "config.json", "model.safetensors", "tokenizer.json", "SHA256SUMS", "README.md"
_SUMMED = (CONFIG, WEIGHTS, TOKENIZER)
_DTYPE_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


class CheckpointError(ValueError):
    """The folder is not a checkpoint of this format; the message names the file or tensor and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model ready to run. ``fingerprint``: sha256 over the config's, weights' and tokenizer's sums."""

    config: HopeConfig
    model: HopeModel
    tokenizer_path: Path
    fingerprint: str


def load_checkpoint(folder: Path, *, device: str = "cpu") -> Checkpoint:
    """Read and check a checkpoint; parameters come back as float32, frozen.

    Raises:
        CheckpointError: a file is missing or altered, or a tensor is not what the config says.
    """
    sums = _checked_sums(folder)
    config = read_config(folder / CONFIG)
    tensors = _read_tensors(folder / WEIGHTS, config)
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
    state = {name: t.detach().to("cpu", _dtype_of(t, config)).contiguous() for name, t in model.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    (folder / CONFIG).write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n")
    (folder / TOKENIZER).write_bytes(tokenizer)
    (folder / CARD).write_text(card)
    sums = {name: _sha256(folder / name) for name in _SUMMED}
    (folder / SUMS).write_text("".join(f"{value}  {name}\n" for name, value in sums.items()))
    return _fingerprint(sums)


def read_config(path: Path) -> HopeConfig:
    """Parse ``config.json``.

    Raises:
        CheckpointError: not JSON, an unknown key, or a value the model does not allow.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=HopeConfig)
    except (msgspec.DecodeError, ValueError) as error:
        raise CheckpointError(f"{path.name}: {error}") from error


def _checked_sums(folder: Path) -> dict[str, str]:
    for name in (*_SUMMED, SUMS):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} has no {name}; a checkpoint folder holds {', '.join((*_SUMMED, SUMS))}")
    lines = (folder / SUMS).read_text(errors="replace").splitlines()
    stated = {name: value for value, _, name in (line.partition("  ") for line in lines)}
    actual = {name: _sha256(folder / name) for name in _SUMMED}
    for name, value in actual.items():
        if stated.get(name) != value:
            raise CheckpointError(
                f"{name} has sha256 {value}, but {SUMS} says {stated.get(name, 'nothing')}: "
                "the file was altered or only partly copied; fetch the checkpoint again"
            )
    return actual


def _read_tensors(path: Path, config: HopeConfig) -> dict[str, Tensor]:
    """Every tensor as float32, after all names, dtypes and shapes agreed with the config."""
    with torch.device("meta"):
        expected = HopeModel(config).state_dict()
    try:
        with safe_open(path, framework="pt") as file:
            _check_header(file, expected, config)
            tensors = {name: file.get_tensor(name).float() for name in expected}
    except SafetensorError as error:
        raise CheckpointError(f"{path.name} is not a safetensors file ({error}); other formats are not read") from error
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path.name}: tensor {name} holds NaN or infinity; train or fetch it again")
    return tensors


def _check_header(file: safe_open, expected: dict[str, Tensor], config: HopeConfig) -> None:
    names = set(file.keys())  # type: ignore[no-untyped-call]
    for problem, odd in (("lacks", expected.keys() - names), ("has the unknown", names - expected.keys())):
        if odd:
            raise CheckpointError(f"{WEIGHTS} {problem} tensor {min(odd)}, going by {CONFIG}")
    for name, tensor in expected.items():
        piece = file.get_slice(name)  # type: ignore[no-untyped-call]
        shape, dtype = list(piece.get_shape()), piece.get_dtype()
        if shape != list(tensor.shape):
            raise CheckpointError(f"{WEIGHTS}: tensor {name} has shape {shape}; {CONFIG} makes it {list(tensor.shape)}")
        wanted = _DTYPE_NAMES[str(_dtype_of(tensor, config)).removeprefix("torch.")]
        if dtype != wanted:
            raise CheckpointError(f"{WEIGHTS}: tensor {name} has dtype {dtype}; {CONFIG} makes it {wanted}")


def _dtype_of(tensor: Tensor, config: HopeConfig) -> torch.dtype:
    """Vectors (norms, rates, decays) are few and sensitive: always float32."""
    if tensor.dim() < 2:
        return torch.float32
    dtype: torch.dtype = getattr(torch, config.dtype)
    return dtype


def _fingerprint(sums: dict[str, str]) -> str:
    return hashlib.sha256("".join(sums[name] for name in _SUMMED).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
