"""A model of softmax attention and SwiGLU levels as it is served: a base, and the memory part that lets it learn.

The one level of every layer is the source's own MLP, and a memory moves its down projection alone
(arXiv 2512.24695, section 7.3: ad-hoc level stacking).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from hope_serve.model.attention import AttentionWeights
from hope_serve.model.attention_checkpoint import (
    AttentionCheckpoint,
    AttentionCheckpointError,
    AttentionConfig,
    load_attention_checkpoint,
    planned_attention_config,
    planned_weights,
)
from hope_serve.model.learn import LevelRule, Rules
from hope_serve.model.parts import MemoryPart, PartError, blank_part, load_part, planned_part, with_start
from hope_serve.optim.gd import GradientDescent
from hope_serve.source_tokenizer import SourceTokenizer

PART = "memory.safetensors"
"""A memory part that lies in a checkpoint's folder is served with it."""


@dataclass(frozen=True, kw_only=True)
class DownLevel:
    """The level of every layer: its down projection learns in a subspace of ``rank`` columns a user."""

    chunk_size: int
    rank: int

    def rule(self) -> GradientDescent:
        """See ``LearningLevel.rule``."""
        return GradientDescent()

    def delta_shapes(self, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Gate and up projection stay as they are."""
        return (0, self.rank), (width, self.rank)


@dataclass(frozen=True, kw_only=True)
class AttentionForm:
    """What is said of the model: the base's config, and what a memory of it is made of."""

    base: AttentionConfig
    level: DownLevel
    closes_with_lesson: bool
    memory_dtype: str = "float16"

    @property
    def name(self) -> str:
        """The base's name."""
        return self.base.name

    @property
    def vocab_size(self) -> int:
        """V."""
        return self.base.vocab_size

    @property
    def hidden_size(self) -> int:
        """d."""
        return self.base.hidden_size

    @property
    def num_layers(self) -> int:
        """L."""
        return self.base.num_layers

    @property
    def dtype(self) -> str:
        """What matrices are stored in, and computed in on a device."""
        return self.base.dtype

    @property
    def levels(self) -> tuple[DownLevel, ...]:
        """One."""
        return (self.level,)

    @property
    def online_levels(self) -> tuple[int, ...]:
        """It learns."""
        return (0,)


@dataclass(frozen=True, kw_only=True)
class AttentionModel:
    """Frozen weights, the part's start merged into them.

    down_and_projection: [L, d + r, F], each layer's down projection over what a memory reads through, so that both
    products are one; ``weights.layers.down`` is a view of it.
    """

    config: AttentionForm
    weights: AttentionWeights
    part: MemoryPart
    down_and_projection: Tensor

    @classmethod
    def of(cls, config: AttentionConfig, weights: AttentionWeights, part: MemoryPart) -> AttentionModel:
        """The base with its part; fp32, or fp64 where the weights are."""
        with torch.no_grad():
            moved = with_start(weights, part.tensors) if part.has_start else weights
            stacked = torch.cat([moved.layers.down, part.tensors["projection"].to(moved.layers.down.dtype)], 1)
        layers = moved.layers._replace(down=stacked[:, : config.hidden_size])
        return cls(
            config=AttentionForm(
                base=config,
                level=DownLevel(chunk_size=part.chunk_size, rank=part.rank),
                closes_with_lesson=part.closes_with_lesson,
            ),
            weights=moved._replace(layers=layers),
            part=part.without_start(),
            down_and_projection=stacked,
        )

    @property
    def num_parameters(self) -> int:
        """Of the base, and of what its memories read through."""
        weights = self.weights
        tensors = [t for t in (weights.embedding, weights.norm, *weights.layers) if t is not None]
        if weights.head is not weights.embedding:
            tensors.append(weights.head)
        return sum(t.numel() for t in (*tensors, *self.part.tensors.values()))

    def rules(self) -> Rules:
        """How the level moves."""
        rate, decay = self.part.rates(), self.part.decays()
        return (LevelRule(optimizer=GradientDescent(), rates=(rate, rate), decays=(decay, decay)),)


@dataclass(frozen=True, kw_only=True)
class LoadedAttention:
    """A checkpoint of the attention kind, ready to run. ``fingerprint``: of the base and its part together."""

    model: AttentionModel
    tokenizer_path: Path
    chat_template: str
    fingerprint: str

    @property
    def config(self) -> AttentionForm:
        """The model's own."""
        return self.model.config

    def tokenizer(self) -> SourceTokenizer:
        """The source's own."""
        base = self.config.base
        return SourceTokenizer(
            self.tokenizer_path,
            chat_template=self.chat_template,
            stop_tokens=base.stop_tokens,
            bos_token=base.bos_token,
            eos_token=base.eos_token,
        )


def load_attention(folder: Path, part: Path | None = None) -> LoadedAttention:
    """Read a converted checkpoint and a memory part: the one named, the one in the folder, or none.

    Without a part the model learns by ``blank_part``, which nobody trained.

    Raises:
        AttentionCheckpointError: the checkpoint or the part is not what it should be.
    """
    checkpoint = load_attention_checkpoint(folder)
    path = _part_path(folder, part)
    try:
        found = _part(path, checkpoint)
    except PartError as error:
        raise AttentionCheckpointError(str(error)) from error
    return LoadedAttention(
        model=AttentionModel.of(checkpoint.config, checkpoint.weights, found),
        tokenizer_path=checkpoint.tokenizer_path,
        chat_template=checkpoint.chat_template,
        fingerprint=_fingerprint(checkpoint.fingerprint, path, found),
    )


def planned_attention(folder: Path, part: Path | None = None) -> AttentionModel:
    """The model without its numbers, from config and headers alone; for what it will take.

    Raises:
        AttentionCheckpointError: as ``load_attention``, as far as these tell.
    """
    config = planned_attention_config(folder)
    path = _part_path(folder, part)
    shape, base = config.shape(), config.source.fingerprint
    try:
        planned = blank_part(shape, base=base) if path is None else planned_part(path)
    except PartError as error:
        raise AttentionCheckpointError(str(error)) from error
    empty = {name: tensor.to("meta") for name, tensor in planned.without_start().tensors.items()}
    return AttentionModel.of(config, planned_weights(config), replace(planned, tensors=MappingProxyType(empty)))


def _part_path(folder: Path, part: Path | None) -> Path | None:
    return part or (folder / PART if (folder / PART).is_file() else None)


def _part(path: Path | None, checkpoint: AttentionCheckpoint) -> MemoryPart:
    shape, base = checkpoint.config.shape(), checkpoint.config.source.fingerprint
    return blank_part(shape, base=base) if path is None else load_part(path, shape, base=base)


def _fingerprint(base: str, path: Path | None, part: MemoryPart) -> str:
    """Memories of one base under another part would read as noise."""
    if path is None:
        named = f"blank {part.rank} {part.chunk_size}".encode()
    else:
        named = hashlib.sha256(path.read_bytes()).hexdigest().encode()
    return hashlib.sha256(base.encode() + b"\n" + named).hexdigest()
