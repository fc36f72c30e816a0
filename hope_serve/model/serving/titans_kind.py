"""HOPE models of Titans layers in serving form: a slot's state is one row of bytes of constant size."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hope_serve.model.cms import Delta
from hope_serve.model.hope import Block, HopeModel
from hope_serve.model.learn import Rules, level_rules
from hope_serve.model.serving.batch import Batch
from hope_serve.model.serving.kind import ServedLayer, ServedParts
from hope_serve.model.serving.levels import ServedLevel
from hope_serve.model.serving.precision import Precision
from hope_serve.model.serving.product import Shared
from hope_serve.model.serving.slab import Slab, SlabLayout
from hope_serve.model.serving.state import fresh_state, state_layout
from hope_serve.model.serving.titans import ServedTitans, TitansSlots


class TitansStates:
    """The states of a pool's slots, layer by layer, in whatever memory they lie.

    Args:
        views: every tensor of every layer as ``{layer}.{name}``, [S, *shape].
    """

    def __init__(self, layers: Sequence[ServedLayer], views: Mapping[str, Tensor]) -> None:
        self.layers: tuple[TitansSlots, ...] = tuple(
            layer.mixer.bind({n.partition(".")[2]: t for n, t in views.items() if n.startswith(f"{i}.")})
            for i, layer in enumerate(layers)
            if isinstance(layer.mixer, ServedTitans)
        )

    def begin(self, batch: Batch) -> None:
        """Every layer's clocks are its own."""

    def end(self, batch: Batch, shared: None) -> None:
        """They have moved."""


class TitansPool(Slab, TitansStates):
    """A slab of Titans states."""

    def __init__(
        self, layout: SlabLayout, layers: Sequence[ServedLayer], num_slots: int, *, device: str, fresh: Tensor
    ) -> None:
        Slab.__init__(self, layout, num_slots, device=device, fresh=fresh)
        TitansStates.__init__(self, layers, self.views)


class TitansKind:
    """See ``Kind``."""

    max_context_tokens, rereads, captures_lessons = 0, False, True

    def __init__(self, model: HopeModel) -> None:
        self.model, self.config = model, model.config
        self.num_heads = model.config.titans.num_heads
        self.cut_tokens = tuple(model.config.titans.rule().chunk_sizes)

    @property
    def num_parameters(self) -> int:
        """See ``Kind``."""
        return sum(p.numel() for p in self.model.parameters())

    @torch.no_grad()
    def rules(self) -> Rules:
        """See ``Kind.rules``."""
        return level_rules(self.model)

    def drift(self, level: int, delta: Delta) -> float:
        """See ``Kind.drift``."""
        moved = weights = 0.0
        for layer, block in enumerate(self.model.blocks):
            one = block.levels[level]
            moved += float(one.drift(Delta(delta.inner[:, layer], delta.outer[:, layer])))
            weights += sum(float(side.square().sum()) for side in (one.inner, one.outer))
        return math.sqrt(moved / weights)

    def parts(self, device: str, precision: Precision) -> ServedParts:
        """See ``Kind.parts``."""
        self.model.freeze()
        moved = _moved(self.model, device, precision.compute)
        embedding = moved.embedding.detach()
        learned = self.config.token_weight == "learned"
        weight = moved.token_weight if learned else None
        return ServedParts(
            embedding=embedding,
            head=Shared.of(embedding),
            norm=moved.norm.scale.detach().float(),
            norm_eps=self.config.norm_eps,
            layers=tuple(_layer(block, precision) for block in moved.blocks),
            weigher=(weight.weight.detach().float(), weight.bias.detach().float()) if weight is not None else None,
            rules=level_rules(moved),
        )

    def state_layout(self, precision: Precision) -> SlabLayout:
        """What a slot's row holds."""
        return state_layout(self.model, precision)

    def state_bytes(self, precision: Precision, max_tokens: int) -> int:  # noqa: ARG002  (of constant size)
        """See ``Kind.state_bytes``."""
        return self.state_layout(precision).num_bytes

    def learning_bytes(self, precision: Precision) -> int:
        """See ``Kind.learning_bytes``: so many rows of each width a layer, counted once, and logits.

        Rows that are fp32 whatever the weights are let those of 16 bits count for 3 bytes.
        """
        config = self.config
        layer = 12 * config.hidden_size + sum(3 * (config.hidden_size + level.hidden_size) for level in config.levels)
        return config.num_layers * layer * min(4, precision.compute.itemsize + 1) + 3 * config.vocab_size * 4

    def state_traffic(self, precision: Precision) -> dict[str, int]:
        """See ``Kind.state_traffic``: matrices are read in every step and written once a chunk."""
        config = self.config
        chunk, width = config.titans.chunk_size, config.num_layers * config.hidden_size
        ring = width * chunk * precision.ring.itemsize
        matrices = self.state_layout(precision).num_bytes - 2 * ring
        return {
            "read": matrices + ring,  # half of both rings is full on average
            "commit": (2 * matrices + 2 * ring) // chunk,
            "conv": width * 7 * precision.compute.itemsize,
        }

    def pool(
        self,
        layers: Sequence[ServedLayer],
        num_slots: int,
        *,
        device: str,
        precision: Precision,
        max_tokens: int,  # noqa: ARG002  (of constant size)
    ) -> TitansPool:
        """See ``Kind.pool``."""
        fresh = fresh_state(self.model, precision)
        return TitansPool(self.state_layout(precision), layers, num_slots, device=device, fresh=fresh)


def _layer(block: Block, precision: Precision) -> ServedLayer:
    return ServedLayer(
        mixer_norm=block.titans_norm.scale.detach(),
        mixer=ServedTitans(block.titans, precision),
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
