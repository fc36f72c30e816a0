"""The optimizers f of a CMS level (arXiv 2512.24695, Eq 71): a chunk's summed gradient in, a moved delta out.

README.md has the table of what each keeps.
"""

from hope_serve.optim.base import KernelRule, LevelOptimizer, Shape, Slots
from hope_serve.optim.delta_momentum import DeltaMomentum
from hope_serve.optim.dmgd import DeepMomentum
from hope_serve.optim.gd import GradientDescent
from hope_serve.optim.m3 import MultiScaleMomentum
from hope_serve.optim.momentum import Momentum
from hope_serve.optim.named import TaggedOptimizer, optimizer_of_word

__all__ = [
    "DeepMomentum",
    "DeltaMomentum",
    "GradientDescent",
    "KernelRule",
    "LevelOptimizer",
    "Momentum",
    "MultiScaleMomentum",
    "Shape",
    "Slots",
    "TaggedOptimizer",
    "optimizer_of_word",
]
