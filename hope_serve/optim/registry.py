"""The optimizers by the name that a checkpoint's config gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from hope_serve.optim.base import LevelOptimizer
from hope_serve.optim.gd import GradientDescent
from hope_serve.optim.momentum import Momentum

OPTIMIZERS: Mapping[str, Callable[[float], LevelOptimizer]] = MappingProxyType(
    {"gd": lambda _: GradientDescent(), "momentum": Momentum}
)


def make_optimizer(name: str, *, momentum: float = 0.9) -> LevelOptimizer:
    """The optimizer called ``name``.

    Raises:
        ValueError: no optimizer has that name.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer {name!r} is unknown; choose one of {', '.join(sorted(OPTIMIZERS))}")
    return OPTIMIZERS[name](momentum)
