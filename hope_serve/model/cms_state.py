"""What sequences have learned: every online CMS level's delta and open chunk, and where its chunks stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from torch import Tensor

from hope_serve.model.cadence import Cadence
from hope_serve.model.cms import Delta
from hope_serve.model.hope import HopeModel
from hope_serve.optim import LevelOptimizer, Shape


class LearningLevel(Protocol):
    """How one online level learns, whatever its matrices are."""

    @property
    def chunk_size(self) -> int:
        """Tokens between its updates."""
        ...

    def rule(self) -> LevelOptimizer:
        """Its optimizer."""
        ...

    def delta_shapes(self, width: int) -> tuple[Shape, Shape]:
        """Of one sequence's inner and outer delta in a layer; a side of no rows is one that does not learn."""
        ...


class LearningModel(Protocol):
    """The part of a model's config that says what a memory of it is made of."""

    @property
    def hidden_size(self) -> int:
        """d."""
        ...

    @property
    def num_layers(self) -> int:
        """L."""
        ...

    @property
    def levels(self) -> tuple[LearningLevel, ...]:
        """Fast to slow."""
        ...

    @property
    def online_levels(self) -> tuple[int, ...]:
        """Indices of those that learn online."""
        ...

    @property
    def closes_with_lesson(self) -> bool:
        """Whether the end of a lesson ends its chunks; else they go on with the next lesson."""
        ...


@dataclass(frozen=True, kw_only=True)
class LevelState:
    """One online level of B sequences; every Delta is stacked over layers.

    A side that does not learn has no rows, [B, L, 0, columns], and is neither named nor stored.

    delta: what has been learned; gradient: the open chunk's sum; slots: the optimizer's own tensors.
    """

    delta: Delta
    gradient: Delta
    slots: tuple[Delta, ...]

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name; the first axis of each is the sequence."""
        parts = {"delta": self.delta, "gradient": self.gradient} | {f"slot{i}": s for i, s in enumerate(self.slots)}
        return {
            f"{name}.{side}": getattr(part, side)
            for name, part in parts.items()
            for side in Delta._fields
            if getattr(part, side).shape[-2]
        }


@dataclass(frozen=True, kw_only=True)
class CmsState:
    """What B sequences have learned: one LevelState an online level, fast to slow."""

    levels: tuple[LevelState, ...]

    @classmethod
    def fresh(cls, model: HopeModel, batch: int) -> Self:
        """Nothing learned yet, in the model's own dtype and on its device."""
        shapes = cms_shapes(model.config)
        return cls.of(model.config, {name: model.embedding.new_zeros(batch, *shape) for name, shape in shapes.items()})

    @classmethod
    def of(cls, config: LearningModel, named: Mapping[str, Tensor]) -> Self:
        """The structure of a model's state around tensors by name, as ``tensors`` names them."""

        return cls(
            levels=tuple(
                LevelState(
                    delta=delta_named(named, f"{i}.delta"),
                    gradient=delta_named(named, f"{i}.gradient"),
                    slots=tuple(delta_named(named, f"{i}.slot{j}") for j in range(_num_slots(config, level))),
                )
                for i, level in enumerate(_online(config))
            )
        )

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name, ``level.part.side``."""
        return {f"{i}.{name}": t for i, level in enumerate(self.levels) for name, t in level.tensors().items()}

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same structure with ``function`` applied to every tensor."""

        def mapped(pair: Delta) -> Delta:
            return Delta(function(pair.inner), function(pair.outer))

        return type(self)(
            levels=tuple(
                LevelState(
                    delta=mapped(level.delta),
                    gradient=mapped(level.gradient),
                    slots=tuple(mapped(slot) for slot in level.slots),
                )
                for level in self.levels
            )
        )


def delta_named(named: Mapping[str, Tensor], prefix: str) -> Delta:
    """The pair of tensors under a prefix; a side that is not there has no rows."""
    outer = named[f"{prefix}.outer"]
    return Delta(named.get(f"{prefix}.inner", outer[..., :0, :]), outer)


def level_optimizers(config: LearningModel) -> tuple[LevelOptimizer, ...]:
    """The optimizer of each online level."""
    return tuple(level.rule() for level in _online(config))


def delta_shapes(config: LearningModel) -> dict[str, tuple[int, int, int]]:
    """Shapes [L, rows, columns] of what the online levels have learned, as ``{level}.delta.{side}``."""
    return {name: shape for name, shape in cms_shapes(config).items() if ".delta." in name}


def cms_shapes(config: LearningModel) -> dict[str, tuple[int, int, int]]:
    """Shapes [L, rows, columns] of everything that one sequence's levels keep."""
    shapes: dict[str, tuple[int, int, int]] = {}
    for i, level in enumerate(_online(config)):
        sides = [_parts(delta, level.rule()) for delta in level.delta_shapes(config.hidden_size)]
        for part in sides[1]:
            for side, parts in zip(Delta._fields, sides, strict=True):
                if parts[part][0]:
                    shapes[f"{i}.{part}.{side}"] = (config.num_layers, *parts[part])
    return shapes


def cadence_of(config: LearningModel, *, tokens: int = 0, skipped: int = 0) -> Cadence:
    """Where the chunks of a model's online levels stand after ``tokens`` and ``skipped`` places."""
    sizes = tuple(level.chunk_size for level in _online(config))
    return Cadence(chunk_sizes=sizes, tokens=tokens, closes=config.closes_with_lesson, skipped=skipped)


def _online(config: LearningModel) -> tuple[LearningLevel, ...]:
    return tuple(config.levels[i] for i in config.online_levels)


def _num_slots(config: LearningModel, level: LearningLevel) -> int:
    inner, _ = level.delta_shapes(config.hidden_size)
    return len(level.rule().slot_shapes(inner))


def _parts(delta: Shape, optimizer: LevelOptimizer) -> dict[str, Shape]:
    """Shapes of what one layer keeps for one matrix of a level."""
    slots = {f"slot{j}": shape for j, shape in enumerate(optimizer.slot_shapes(delta))}
    return {"delta": delta, "gradient": delta, **slots}
