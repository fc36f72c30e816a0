"""The optimizers f of a CMS level (arXiv 2512.24695, Eq 71): a chunk's summed gradient in, a moved delta out.

What one matrix of n x c values keeps beside its delta and open gradient, n c values each:

| rule             | keeps                                                        | values        | in the kernel |
| ---------------- | ------------------------------------------------------------ | ------------- | ------------- |
| `gd`             | nothing                                                      | 0             | yes           |
| `momentum`       | the momentum                                                 | n c           | yes           |
| `delta_momentum` | the momentum                                                 | n c           | no            |
| `dmgd`           | the two matrices of its MLP                                  | 2 c h         | no            |
| `m3`             | two momenta, a deviation, the sum of new gradients, a count  | 4 n c + 1     | no            |
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
