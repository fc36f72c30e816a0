"""model.safetensors: what its header says is compared with the config before a model of the config's size is built."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hope_serve.model.config import HopeConfig
from hope_serve.model.hope import HopeModel

_DTYPE_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


class WeightsError(ValueError):
    """The file is not of this format, or not of this config; the message names the tensor and both values."""


def check_weights(path: Path, config: HopeConfig) -> None:
    """Compare every name, dtype and shape with the config; no weight is read.

    Raises:
        WeightsError: they differ.
    """
    with _named(path), _opened(path) as file:
        _expected(file, config)


def read_weights(path: Path, config: HopeConfig) -> dict[str, Tensor]:
    """Every tensor as float32, after all names, dtypes and shapes agreed with the config.

    Raises:
        WeightsError: they differ, or a tensor holds what is no number.
    """
    with _named(path):
        with _opened(path) as file:
            tensors = {name: file.get_tensor(name).float() for name in _expected(file, config)}
        for name, tensor in tensors.items():
            if not torch.isfinite(tensor).all():
                raise WeightsError(f"tensor {name} holds NaN or infinity; train or fetch it again")
    return tensors


def stored_dtype(tensor: Tensor, config: HopeConfig) -> torch.dtype:
    """Vectors (norms, rates, decays) are few and sensitive: always float32."""
    if tensor.dim() < 2:
        return torch.float32
    dtype: torch.dtype = getattr(torch, config.dtype)
    return dtype


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"{path.name}: {error}") from error


def _opened(path: Path) -> safe_open:
    """The file with its header read and checked by the library, its length included."""
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise WeightsError(f"this is not a safetensors file ({error}); other formats are not read") from error
    except OSError as error:
        raise WeightsError(f"cannot be read: {error.strerror or error}") from error


def _expected(file: safe_open, config: HopeConfig) -> dict[str, Tensor]:
    """The config's tensors, without content. Raises WeightsError where the file's are others."""
    names = set(file.keys())  # type: ignore[no-untyped-call]
    _check_counts(names, config)
    with torch.device("meta"):
        expected = HopeModel(config).state_dict()
    for problem, odd in (("lacks", expected.keys() - names), ("has the unknown", names - expected.keys())):
        if odd:
            raise WeightsError(f"{problem} tensor {min(odd)}, going by config.json")
    for name, tensor in expected.items():
        piece = file.get_slice(name)  # type: ignore[no-untyped-call]
        shape, dtype = list(piece.get_shape()), piece.get_dtype()
        if shape != list(tensor.shape):
            raise WeightsError(f"tensor {name} has shape {shape}; config.json makes it {list(tensor.shape)}")
        wanted = _DTYPE_NAMES[str(stored_dtype(tensor, config)).removeprefix("torch.")]
        if dtype != wanted:
            raise WeightsError(f"tensor {name} has dtype {dtype}; config.json makes it {wanted}")
    return expected


def _check_counts(names: set[str], config: HopeConfig) -> None:
    """Before anything of the config's size is built: each block and each level takes modules of its own."""
    blocks = {name.split(".")[1] for name in names if name.startswith("blocks.")}
    levels = {name.split(".")[3] for name in names if name.startswith("blocks.0.levels.")}
    for field, stated, held in (
        ("num_layers", config.num_layers, len(blocks)),
        ("the number of levels", len(config.levels), len(levels)),
    ):
        if stated != held:
            raise WeightsError(f"has tensors for {held} of them, where config.json says {field} is {stated}")
