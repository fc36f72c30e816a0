"""The optimizers f of a CMS level (arXiv 2512.24695, Eq 71): a chunk's summed gradient in, a moved delta out."""

from hope_serve.optim.base import LevelOptimizer
from hope_serve.optim.registry import OPTIMIZERS, make_optimizer

__all__ = ["OPTIMIZERS", "LevelOptimizer", "make_optimizer"]
