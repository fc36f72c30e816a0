"""Two layers of each kind, of about equal size, behind one face: ids to vectors, and vectors to what was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hope_serve.model.config import HopeConfig, LevelConfig, TitansConfig
from hope_serve.model.hope import HopeModel
from hope_serve.training.mad.gated_delta import GatedDeltaNet
from hope_serve.training.mad.tasks import Task
from hope_serve.training.rival import Transformer

WIDTH, WIDE, NUM_LAYERS, NUM_HEADS = 128, 256, 2, 2
CHUNK = 64
MAX_PLACES = 1024


class Backbone(Protocol):
    """Ids [B, T] to vectors [B, T, d]; ``embedding`` [V, d] is the head as well."""

    embedding: nn.Parameter

    def hidden(self, rows: Tensor) -> Tensor:
        """See above."""


class Hope(HopeModel):
    """HOPE as a backbone: every sequence from a fresh state, no level online."""

    def hidden(self, rows: Tensor) -> Tensor:
        """Ids [B, T] to vectors [B, T, d]."""
        vectors, _ = self(rows, self.fresh_state(len(rows)))
        out: Tensor = vectors
        return out


class Answerer(nn.Module):
    """A backbone and what turns its vectors into answers: the tied head, or for squeezed tasks a decoder by place."""

    def __init__(self, backbone: nn.Module, *, squeezed: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.places = nn.Parameter(torch.randn(MAX_PLACES, WIDTH) / WIDTH**0.5) if squeezed else None
        self.decoder = _decoder() if squeezed else None

    def forward(self, rows: Tensor) -> Tensor:
        """Ids [B, T] to logits [B, T, V]."""
        backbone: Backbone = self.backbone  # type: ignore[assignment]
        hidden = backbone.hidden(rows)
        if self.places is not None and self.decoder is not None:
            hidden = self.decoder(hidden[:, -1:] + self.places[: rows.shape[1]])
        return F.linear(hidden, backbone.embedding)


def _decoder() -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.SiLU(), nn.Linear(4 * WIDTH, WIDTH))


def make_model(kind: str, task: Task) -> Answerer:
    """A fresh model. Raises KeyError: no such kind."""
    return Answerer(KINDS[kind](hope_config(task)), squeezed=task.squeezed)


def hope_config(task: Task) -> HopeConfig:
    """The HOPE model whose size the others have."""
    return HopeConfig(
        vocab_size=task.vocab_size,
        hidden_size=WIDTH,
        num_layers=NUM_LAYERS,
        titans=TitansConfig(num_heads=NUM_HEADS, chunk_size=CHUNK, eta_max=0.5),
        levels=(LevelConfig(hidden_size=WIDE),),
        token_weight="none",  # noqa: S106 - of a token of text
        dtype="float32",
    )


def _gated_delta(config: HopeConfig) -> nn.Module:
    """As many parameters as the HOPE model; its MLPs take what its mixers leave."""

    def made(wide: int) -> GatedDeltaNet:
        return GatedDeltaNet(
            vocab_size=config.vocab_size, width=WIDTH, wide=wide, num_layers=NUM_LAYERS, num_heads=NUM_HEADS
        )

    with torch.device("meta"):
        rest = num_parameters(HopeModel(config)) - num_parameters(made(1))
    return made(max(WIDTH // 2, rest // (2 * WIDTH * NUM_LAYERS)))


def num_parameters(model: nn.Module) -> int:
    """How many."""
    return sum(p.numel() for p in model.parameters())


KINDS: Mapping[str, Callable[[HopeConfig], nn.Module]] = MappingProxyType(
    {"HOPE": Hope, "Transformer": Transformer.of_equal_size, "gated delta net": _gated_delta}
)
