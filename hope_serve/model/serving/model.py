"""The served model: tokens of a batch by slot in, hidden rows out; state and memories stay in their pools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from hope_kernels.residual_norm.op import residual_norm
from torch import Tensor

from hope_serve.model.attention_model import AttentionModel
from hope_serve.model.cms import Delta
from hope_serve.model.cms_state import delta_named, delta_shapes
from hope_serve.model.hope import MAX_TOKEN_WEIGHT, HopeModel
from hope_serve.model.serving.attention_kind import AttentionKind
from hope_serve.model.serving.batch import Batch
from hope_serve.model.serving.kind import Kind, ServedConfig, ServedLayer, StatePool
from hope_serve.model.serving.precision import Precision
from hope_serve.model.serving.product import Shared, product
from hope_serve.model.serving.slab import Part, SlabLayout
from hope_serve.model.serving.titans_kind import TitansKind
from hope_serve.tokenizer import Vocabulary

LayerDeltas = Sequence[Sequence[Delta]]
"""For every layer one Delta an online level, fast to slow: pools [S, F, r] and [S, d, r]."""

Model = HopeModel | AttentionModel


class Loaded(Protocol):
    """A checkpoint in memory, of any kind."""

    @property
    def model(self) -> Model:
        """The model, on the CPU."""
        ...

    @property
    def config(self) -> ServedConfig:
        """What it says of itself."""
        ...

    @property
    def fingerprint(self) -> str:
        """Whose memories it reads."""
        ...

    def tokenizer(self) -> Vocabulary:
        """The model's tokenizer."""
        ...


class ServedModel:
    """A frozen model in serving form, on one device.

    Args:
        model: the model, on the CPU.
        device: where the served form goes.
        max_context_tokens: how many a sequence may have, of a kind whose state grows with them; 0 is the model's own.
    """

    def __init__(self, model: Model, *, device: str, precision: Precision, max_context_tokens: int = 0) -> None:
        self.kind = kind_of(model)
        self.config, self.device, self.precision = self.kind.config, torch.device(device), precision
        self.max_context_tokens = context_limit(self.kind, max_context_tokens)
        self._parts = self.kind.parts(device, precision)
        self.rules = self._parts.rules

    def state_pool(self, num_slots: int) -> StatePool:
        """What ``num_slots`` sequences carry, all before their first token."""
        device, limit = str(self.device), self.max_context_tokens
        return self.kind.pool(self._parts.layers, num_slots, device=device, precision=self.precision, max_tokens=limit)

    @property
    def layers(self) -> tuple[ServedLayer, ...]:
        """Everything that a token passes through, in order."""
        return self._parts.layers

    def delta_layout(self, dtype: torch.dtype) -> SlabLayout:
        """What a slot's memory reads as: one delta an online level, all layers together."""
        return SlabLayout({name: Part(shape, dtype) for name, shape in delta_shapes(self.config).items()})

    def bind_deltas(self, views: Mapping[str, Tensor]) -> LayerDeltas:
        """The tensors of a pool of memories, layer by layer."""
        pairs = [delta_named(views, f"{i}.delta") for i in range(len(self.config.online_levels))]
        return tuple(
            tuple(Delta(pair.inner[:, layer], pair.outer[:, layer]) for pair in pairs)
            for layer in range(self.config.num_layers)
        )

    def run(self, batch: Batch, state: StatePool, deltas: LayerDeltas | None) -> Tensor:
        """Feed the batch's tokens; the slots' state moves in place.

        Args:
            batch: tokens and slots.
            state: as ``state_pool`` gives it.
            deltas: as ``bind_deltas`` gives them; None runs the model as trained.

        Returns:
            hidden [N, d] after the final norm, in the compute dtype.
        """
        parts, dtype = self._parts, self.precision.compute
        h, x = F.embedding(batch.tokens, parts.embedding).to(self.precision.wide), None
        eps, shared = parts.norm_eps, state.begin(batch)
        for index, (layer, slots) in enumerate(zip(parts.layers, state.layers, strict=True)):
            h, y = residual_norm(h, x, layer.mixer_norm, eps, dtype)
            x = layer.mixer.run(y, batch, slots, shared)
            learned = iter(deltas[index] if deltas else ())
            for norm, level in zip(layer.level_norms, layer.levels, strict=True):
                h, y = residual_norm(h, x, norm, eps, dtype)
                x = level.run(y, batch, next(learned, None) if level.online else None)
        state.end(batch, shared)
        return residual_norm(h, x, parts.norm, eps, dtype)[1]

    def weights(self) -> list[Tensor]:
        """Every shared tensor that a step reads."""
        return [*(shared.wide for shared in self._shared()), *self._initial()]

    def weight_bytes(self) -> tuple[int, int]:
        """Bytes of the shared matrices that rows are multiplied by, and of what Titans' memories start from."""
        return sum(shared.num_bytes for shared in self._shared()), sum(map(_bytes, self._initial()))

    def _shared(self) -> list[Shared]:
        found = [self._parts.head]
        for layer in self._parts.layers:
            found += layer.mixer.shared()
            found += [shared for level in layer.levels for shared in level.shared()]
        return found

    def _initial(self) -> list[Tensor]:
        return [t for layer in self._parts.layers for t in layer.mixer.initial()]

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits [..., V], fp32, of hidden rows [..., d]."""
        return product(hidden, self._parts.head, self.precision.wide)

    def learning_weight(self, hidden: Tensor) -> Tensor:
        """How much each row's loss counts when the model learns online, [N] in (0, 4); see ``HopeModel``."""
        if self._parts.weigher is None:
            return torch.ones(len(hidden), device=hidden.device)
        weight, bias = self._parts.weigher
        return MAX_TOKEN_WEIGHT * torch.sigmoid(F.linear(hidden.detach().to(weight.dtype), weight, bias)[:, 0])


def kind_of(model: Model) -> Kind:
    """The model by the kind of its layers."""
    return TitansKind(model) if isinstance(model, HopeModel) else AttentionKind(model)


def context_limit(kind: Kind, asked: int) -> int:
    """Tokens that a sequence may have: as asked, and never more than the model knows; 0 where any number will do."""
    return min(asked or kind.max_context_tokens, kind.max_context_tokens)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
