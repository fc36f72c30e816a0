"""What every source of a model comes down to: weights under one set of names, a tokenizer and where it is from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hope_serve.model.attention import AttentionShape, AttentionWeights, LayerWeights
from hope_serve.model.parts import matrix_shapes


class SourceError(ValueError):
    """The source cannot be read as a model; the message names the file, field or tensor and the remedy."""


class Tensors(Protocol):
    """Tensors by this project's names, as float32: ``embedding``, ``head``, ``norm``, ``3.query``, ``3.query_bias``."""

    def names(self) -> frozenset[str]:
        """Every tensor there is."""
        ...

    def read(self, name: str) -> Tensor:
        """One tensor, as float32.

        Raises:
            SourceError: it cannot be read.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A source's dimensions. ``biases``: of query, key and value; ``tied``: the head is the embedding."""

    name: str
    shape: AttentionShape
    biases: bool
    tied: bool
    max_context_tokens: int


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Where a source is from. ``fingerprint``: sha256 of its weights as published; memory parts name it."""

    name: str
    licence: str
    files: Mapping[str, str]
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Dialogue:
    """How a source talks: its tokenizer.json, its chat template (Jinja) and the ids that end a reply."""

    tokenizer: bytes
    chat_template: str
    stop_tokens: tuple[int, ...]
    bos_token: str = ""
    eos_token: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model of another maker, ready to be converted."""

    architecture: Architecture
    tensors: Tensors
    dialogue: Dialogue
    identity: Identity


LAYER_NORMS = ("attention_norm", "mlp_norm")
BIASES = ("query", "key", "value")


def expected_tensors(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor that a source of this architecture must hold."""
    shape, sizes = architecture.shape, matrix_shapes(architecture.shape)
    table: dict[str, tuple[int, ...]] = {
        "embedding": (shape.vocab_size, shape.hidden_size),
        "norm": (shape.hidden_size,),
    }
    if not architecture.tied:
        table["head"] = table["embedding"]
    for layer in range(shape.num_layers):
        table |= {f"{layer}.{name}": (shape.hidden_size,) for name in LAYER_NORMS}
        table |= {f"{layer}.{name}": size for name, size in sizes.items()}
        if architecture.biases:
            table |= {f"{layer}.{name}_bias": sizes[name][:1] for name in BIASES}
    return table


def read_weights(source: Source, *, dtype: torch.dtype = torch.float32) -> AttentionWeights:
    """The whole model in memory, layers stacked.

    Raises:
        SourceError: a tensor is missing, unknown, misshapen or not finite.
    """
    architecture = source.architecture
    expected = expected_tensors(architecture)
    check_names(frozenset(expected), source.tensors.names())
    read = {name: checked(name, source.tensors.read(name), size).to(dtype) for name, size in expected.items()}
    embedding = read["embedding"]
    return AttentionWeights(
        embedding=embedding,
        head=embedding if architecture.tied else read["head"],
        norm=read["norm"],
        layers=_stacked(read, architecture),
    )


def _stacked(read: Mapping[str, Tensor], architecture: Architecture) -> LayerWeights:
    def stack(*names: str) -> Tensor:
        layers = range(architecture.shape.num_layers)
        return torch.stack([torch.cat([read[f"{layer}.{name}"] for name in names]) for layer in layers])

    return LayerWeights(
        attention_norm=stack("attention_norm"),
        query_key_value=stack("query", "key", "value"),
        output=stack("output"),
        mlp_norm=stack("mlp_norm"),
        gate_up=stack("gate", "up"),
        down=stack("down"),
        bias=stack("query_bias", "key_bias", "value_bias") if architecture.biases else None,
    )


def check_names(expected: frozenset[str], names: frozenset[str]) -> None:
    """Raise a SourceError unless the source holds exactly the expected tensors."""
    for problem, odd in (("lacks", expected - names), ("has the unknown", names - expected)):
        if odd:
            raise SourceError(f"the source {problem} tensor {min(odd)}; is it complete, and of a known architecture?")


def checked(name: str, tensor: Tensor, size: tuple[int, ...]) -> Tensor:
    """The tensor, if it has this size and only finite values; else a SourceError."""
    if tuple(tensor.shape) != size:
        raise SourceError(f"tensor {name} has shape {list(tensor.shape)}; the configuration makes it {list(size)}")
    if not torch.isfinite(tensor).all():
        raise SourceError(f"tensor {name} holds NaN or infinity; fetch the source again")
    return tensor
