"""The served model: tokens of a batch by slot in, hidden rows out; state and memories stay in their pools."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from hope_kernels.residual_norm.op import residual_norm
from torch import Tensor

from hope_serve.model.cms import Delta
from hope_serve.model.cms_state import delta_shapes
from hope_serve.model.hope import MAX_TOKEN_WEIGHT, Block, HopeModel
from hope_serve.model.learn import level_rules
from hope_serve.model.serving.batch import Batch
from hope_serve.model.serving.levels import ServedLevel
from hope_serve.model.serving.precision import Precision
from hope_serve.model.serving.product import product
from hope_serve.model.serving.slab import Part, SlabLayout
from hope_serve.model.serving.state import fresh_state, state_layout
from hope_serve.model.serving.titans import ServedTitans, TitansSlots

LayerDeltas = Sequence[Sequence[Delta]]
"""For every layer one Delta an online level, fast to slow: pools [S, F, r] and [S, d, r]."""


class _Layer(NamedTuple):
    titans_norm: Tensor
    titans: ServedTitans
    level_norms: tuple[Tensor, ...]
    levels: tuple[ServedLevel, ...]


class ServedModel:
    """A frozen model in serving form, on one device.

    Args:
        model: the model, on the CPU.
        device: where the served form goes.
    """

    def __init__(self, model: HopeModel, *, device: str, precision: Precision) -> None:
        self.config, self.device, self.precision = model.config, torch.device(device), precision
        model.freeze()
        moved = _moved(model, device, precision.compute)
        self._embedding = moved.embedding.detach()
        self._norm = moved.norm.scale.detach().float()
        self._layers = tuple(_layer(block, precision) for block in moved.blocks)
        learned = self.config.token_weight == "learned"
        self._weigher = tuple(p.detach().float() for p in moved.token_weight.parameters()) if learned else None
        self.rules = level_rules(moved)
        self.state_layout, self.fresh_state = state_layout(model, precision), fresh_state(model, precision)

    def delta_layout(self, dtype: torch.dtype) -> SlabLayout:
        """What a slot's memory reads as: one delta an online level, all layers together."""
        return SlabLayout({name: Part(shape, dtype) for name, shape in delta_shapes(self.config).items()})

    def bind_state(self, views: Mapping[str, Tensor]) -> tuple[TitansSlots, ...]:
        """The tensors of a state pool, layer by layer."""
        return tuple(
            layer.titans.bind({n.partition(".")[2]: t for n, t in views.items() if n.startswith(f"{i}.")})
            for i, layer in enumerate(self._layers)
        )

    def bind_deltas(self, views: Mapping[str, Tensor]) -> LayerDeltas:
        """The tensors of a pool of memories, layer by layer."""
        pairs = [
            Delta(views[f"{i}.delta.inner"], views[f"{i}.delta.outer"]) for i in range(len(self.config.online_levels))
        ]
        return tuple(
            tuple(Delta(pair.inner[:, layer], pair.outer[:, layer]) for pair in pairs)
            for layer in range(self.config.num_layers)
        )

    def run(self, batch: Batch, state: Sequence[TitansSlots], deltas: LayerDeltas | None) -> Tensor:
        """Feed the batch's tokens; the slots' state moves in place.

        Args:
            batch: tokens and slots.
            state: as ``bind_state`` gives it.
            deltas: as ``bind_deltas`` gives them; None runs the model as trained.

        Returns:
            hidden [N, d] after the final norm, in the compute dtype.
        """
        h, x = F.embedding(batch.tokens, self._embedding).to(self.precision.wide), None
        eps = self.config.norm_eps
        dtype = self.precision.compute
        for index, (layer, slots) in enumerate(zip(self._layers, state, strict=True)):
            h, y = residual_norm(h, x, layer.titans_norm, eps, dtype)
            x = layer.titans.run(y, batch, slots)
            learned = iter(deltas[index] if deltas else ())
            for norm, level in zip(layer.level_norms, layer.levels, strict=True):
                h, y = residual_norm(h, x, norm, eps, dtype)
                x = level.run(y, batch, next(learned, None) if level.online else None)
        return residual_norm(h, x, self._norm, eps, dtype)[1]

    def weights(self) -> list[Tensor]:
        """Every shared tensor that a step reads."""
        layers = [
            t
            for layer in self._layers
            for t in (*layer.titans.weights(), *(w for lv in layer.levels for w in lv.weights()))
        ]
        return [self._embedding, *layers]

    def weight_bytes(self) -> tuple[int, int]:
        """Bytes of the shared matrices that rows are multiplied by, and of what Titans' memories start from."""
        memories = sum(_bytes(t) for layer in self._layers for t in layer.titans.initial())
        return sum(map(_bytes, self.weights())) - memories, memories

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits [..., V], fp32, of hidden rows [..., d]; the embedding is tied."""
        return product(hidden, self._embedding, self.precision.wide)

    def learning_weight(self, hidden: Tensor) -> Tensor:
        """How much each row's loss counts when the model learns online, [N] in (0, 4); see ``HopeModel``."""
        if self._weigher is None:
            return torch.ones(len(hidden), device=hidden.device)
        weight, bias = self._weigher
        return MAX_TOKEN_WEIGHT * torch.sigmoid(F.linear(hidden.detach().float(), weight, bias)[:, 0])


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _layer(block: Block, precision: Precision) -> _Layer:
    return _Layer(
        titans_norm=block.titans_norm.scale.detach(),
        titans=ServedTitans(block.titans, precision),
        level_norms=tuple(norm.scale.detach() for norm in block.level_norms),
        levels=tuple(ServedLevel(level) for level in block.levels),
    )


def _moved(model: HopeModel, device: str, dtype: torch.dtype) -> HopeModel:
    """The model on ``device``; vectors are few and sensitive, so they stay fp32."""
    if torch.device(device).type == "cpu" and dtype is model.embedding.dtype:
        return model.freeze()
    moved = copy.deepcopy(model).to(device)
    for parameter in moved.parameters():
        if parameter.dim() > 1:
            parameter.data = parameter.data.to(dtype)
    return moved.freeze()
