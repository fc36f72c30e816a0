"""Deep momentum gradient descent: the momentum is an MLP that learns, row by row, which gradients come again."""

from __future__ import annotations

import math

import msgspec
import torch
from torch import Tensor

from hope_serve.optim.base import Shape, Slots
from hope_serve.optim.limits import require_between, require_retention
from hope_serve.optim.matrices import inverse_root, root

MAX_HIDDEN_SIZE = 2**16


class DeepMomentum(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="rule", tag="dmgd"):
    """m <- beta m + inner_rate dJ/dm; delta <- decay delta - rate m(gradient) (arXiv 2512.24695, Eq 50).

    The paper asks that the MLP and its objective J "be designed carefully" and gives neither. Here:

    - m(u) = s M(u / s) for every row u of the gradient, s the rows' root mean square: m(c u) = c m(u), so the step
      has the gradient's unit whatever the tokens of a chunk.
    - M(x) = x + W1 tanh(W2 x), the form of the paper's memories (Eq 89), with W1 from 0 and W2 from fixed
      cosines. A memory that has seen nothing is ``GradientDescent``; without the x it would never move.
    - J is the dot product <M(x), x>, averaged over rows: the paper's example with the identity for its 1, which for a
      linear m is ordinary momentum. So directions that come again are amplified. tanh bounds m for every ``beta`` < 1.

    ``hidden_size`` is the number of directions that m can tell apart.
    """

    hidden_size: int = 16
    beta: float = 0.9
    inner_rate: float = 0.1

    def __post_init__(self) -> None:
        require_between("dmgd.hidden_size", self.hidden_size, 1, MAX_HIDDEN_SIZE)
        require_retention("dmgd.beta", self.beta)
        require_between("dmgd.inner_rate", self.inner_rate, 0, 1)

    @property
    def kernel(self) -> None:
        """See ``LevelOptimizer.kernel``."""
        return

    def slot_shapes(self, delta: Shape) -> tuple[Shape, ...]:
        """W1, and what W2 has moved from its start."""
        columns = delta[1]
        return (columns, self.hidden_size), (self.hidden_size, columns)

    def update(
        self, delta: Tensor, gradient: Tensor, slots: Slots, *, rate: Tensor, decay: Tensor
    ) -> tuple[Tensor, Slots]:
        """See ``LevelOptimizer.update``."""
        square = gradient.square().sum(-1, keepdim=True).mean(-2, keepdim=True)
        x = gradient * inverse_root(square)
        start = cosines(self.hidden_size, x)
        outer, inner = self._learned(slots, x, start)
        step = root(square) * (x + torch.tanh(x @ (start + inner).mT) @ outer.mT)
        return decay * delta - rate * step, (outer, inner)

    def _learned(self, slots: Slots, x: Tensor, start: Tensor) -> Slots:
        """The MLP after one step up J."""
        outer, inner = slots
        hidden = torch.tanh(x @ (start + inner).mT)
        share = self.inner_rate / x.shape[-2]
        pulled = (x @ outer) * (1 - hidden.square())
        return self.beta * outer + share * x.mT @ hidden, self.beta * inner + share * pulled.mT @ x


def cosines(rows: int, like: Tensor) -> Tensor:
    """W2 before it learned: the DCT-IV's rows, orthonormal as far as there are columns, the same for everybody.

    Computed in fp64, so that devices agree.
    """
    columns = like.shape[-1]
    along = torch.arange(columns, dtype=torch.float64, device=like.device) + 0.5
    down = torch.arange(rows, dtype=torch.float64, device=like.device)[:, None] + 0.5
    return (math.sqrt(2 / columns) * torch.cos(math.pi / columns * down * along)).to(like.dtype)
