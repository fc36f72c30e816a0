"""What sequences have learned: every online CMS level's delta and open chunk, and where its chunks stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from hope_serve.model.cms import Delta
from hope_serve.model.hope import HopeModel
from hope_serve.optim import LevelOptimizer, make_optimizer


@dataclass(frozen=True, kw_only=True)
class LevelState:
    """One online level of B sequences; every Delta is stacked over layers.

    delta: what has been learned; gradient: the open chunk's sum; slots: the optimizer's own tensors.
    """

    delta: Delta
    gradient: Delta
    slots: tuple[Delta, ...]

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name; the first axis of each is the sequence."""
        parts = {"delta": self.delta, "gradient": self.gradient} | {f"slot{i}": s for i, s in enumerate(self.slots)}
        return {f"{name}.{side}": getattr(part, side) for name, part in parts.items() for side in Delta._fields}


@dataclass(frozen=True, kw_only=True)
class CmsState:
    """What B sequences have learned: one LevelState an online level, fast to slow."""

    levels: tuple[LevelState, ...]

    @classmethod
    def fresh(cls, model: HopeModel, batch: int) -> Self:
        """Nothing learned yet."""
        levels: list[LevelState] = []
        for index in model.config.online_levels:
            shapes = model.blocks[0].levels[index].delta_shapes()
            zero = [model.embedding.new_zeros(batch, model.config.num_layers, *shape) for shape in shapes]
            slots = level_optimizers(model)[len(levels)].num_slots
            blank = [Delta(*(z.clone() for z in zero)) for _ in range(2 + slots)]
            levels.append(LevelState(delta=blank[0], gradient=blank[1], slots=tuple(blank[2:])))
        return cls(levels=tuple(levels))

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name, ``level.part.side``."""
        return {f"{i}.{name}": t for i, level in enumerate(self.levels) for name, t in level.tensors().items()}

    def with_tensors(self, named: Mapping[str, Tensor]) -> Self:
        """The same structure around other tensors."""

        def pair(prefix: str) -> Delta:
            return Delta(named[f"{prefix}.inner"], named[f"{prefix}.outer"])

        return type(self)(
            levels=tuple(
                LevelState(
                    delta=pair(f"{i}.delta"),
                    gradient=pair(f"{i}.gradient"),
                    slots=tuple(pair(f"{i}.slot{j}") for j in range(len(level.slots))),
                )
                for i, level in enumerate(self.levels)
            )
        )

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same structure with ``function`` applied to every tensor."""
        return self.with_tensors({name: function(t) for name, t in self.tensors().items()})


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """Where ``tokens`` learned so far stand in every level's chunk: levels fire on tokens, never on calls.

    chunk_sizes: of the online levels, fast to slow.
    """

    chunk_sizes: tuple[int, ...]
    tokens: int = 0

    def room(self) -> int:
        """Tokens until the fastest level fires; a segment never reaches past them."""
        return self.chunk_sizes[0] - self.tokens % self.chunk_sizes[0]

    def after(self, count: int) -> Self:
        """The cadence ``count`` tokens later."""
        return type(self)(chunk_sizes=self.chunk_sizes, tokens=self.tokens + count)

    def fired(self) -> tuple[bool, ...]:
        """Which levels' chunks end exactly here."""
        return tuple(self.tokens > 0 and self.tokens % size == 0 for size in self.chunk_sizes)

    def updates(self) -> tuple[int, ...]:
        """Chunks that each level has completed."""
        return tuple(self.tokens // size for size in self.chunk_sizes)


def level_optimizers(model: HopeModel) -> tuple[LevelOptimizer, ...]:
    """The optimizer of each online level."""
    levels = (model.config.levels[i] for i in model.config.online_levels)
    return tuple(make_optimizer(level.optimizer, momentum=level.momentum) for level in levels)
