"""The optimizers that a checkpoint's config can name."""

from __future__ import annotations

from hope_serve.optim.delta_momentum import DeltaMomentum
from hope_serve.optim.dmgd import DeepMomentum
from hope_serve.optim.gd import GradientDescent
from hope_serve.optim.m3 import MultiScaleMomentum
from hope_serve.optim.momentum import Momentum

TaggedOptimizer = GradientDescent | Momentum | DeltaMomentum | DeepMomentum | MultiScaleMomentum
"""In JSON an object whose ``rule`` is the tag: ``{"rule": "dmgd", "hidden_size": 32}``."""


def optimizer_of_word(word: str, *, momentum: float) -> TaggedOptimizer:
    """The optimizer that a bare word stands for, as configs had it before there were tags.

    Raises:
        ValueError: no optimizer goes by that word.
    """
    match word:
        case "gd":
            return GradientDescent()
        case "momentum":
            return Momentum(beta=momentum)
    raise ValueError(f'optimizer {word!r} is unknown; write gd, momentum, or an object such as {{"rule": "m3"}}')
