"""One optimizer of each kind, and a tiny model whose online levels both follow it."""

from __future__ import annotations

import pytest

from hope_serve.model.config import LevelConfig
from hope_serve.optim import DeepMomentum, DeltaMomentum, GradientDescent, Momentum, MultiScaleMomentum

RULES = (
    GradientDescent(),
    Momentum(beta=0.6),
    DeltaMomentum(beta=0.8, erase=0.7),
    DeepMomentum(hidden_size=3, inner_rate=0.3),
    MultiScaleMomentum(frequency=2),
)
EVERY_RULE = pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__struct_config__.tag)


def levels_with(rule, *, form="subspace"):
    """Two online levels and a frozen one."""
    rank = 4 if form == "subspace" else 0
    online = tuple(
        LevelConfig(hidden_size=48, chunk_size=size, delta=form, rank=rank, learning_rate=0.02, optimizer=rule)
        for size in (16, 32)
    )
    return (*online, LevelConfig(hidden_size=48))
