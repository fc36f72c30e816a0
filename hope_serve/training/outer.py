"""The outer optimizers: what moves a checkpoint's weights by the gradient through its memories."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from hope_serve.model.hope import HopeModel
from hope_serve.optim import MultiScaleMomentum
from hope_serve.training.config import ScheduleConfig

ADAM_LENGTH = 0.2
"""Root mean square of Adam's step over its rate, as seen in training: so the two take the same rates."""
M3_SLOTS = ("fast", "deviation", "slow", "recent", "count")
_BETAS = (0.9, 0.98)


class M3(torch.optim.Optimizer):
    """Multi-scale momentum Muon for matrices (arXiv 2512.24695, Algorithm 1), with steps of Adam's length.

    The direction is ``MultiScaleMomentum``'s, the same rule that a CMS level may have; leading axes are batches of
    matrices. The length is ``lr`` times ``ADAM_LENGTH`` times the root of the matrix's size, whatever the loss's unit.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], rule: MultiScaleMomentum, *, lr: float, weight_decay: float
    ) -> None:
        super().__init__(parameters, {"lr": lr, "base": lr, "weight_decay": weight_decay})
        self._rule = rule

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step of every matrix that has a gradient; ``closure`` is not taken."""
        if closure is not None:
            raise ValueError("closure is given, and M3 takes none: call backward before step")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, lr=group["lr"], weight_decay=group["weight_decay"])

    def _move(self, parameter: nn.Parameter, *, lr: float, weight_decay: float) -> None:
        state = self.state[parameter] or self._fresh(parameter)
        one = parameter.new_ones(())
        slots = tuple(state[name] for name in M3_SLOTS)
        moved, slots = self._rule.update(torch.zeros_like(parameter), parameter.grad, slots, rate=one, decay=one)  # type: ignore[arg-type]
        self.state[parameter] = dict(zip(M3_SLOTS, slots, strict=True))
        norm = torch.linalg.matrix_norm(moved, keepdim=True)
        length = lr * ADAM_LENGTH * math.sqrt(math.prod(parameter.shape[-2:]))
        parameter.mul_(1 - lr * weight_decay).add_(torch.where(norm > 0, moved / norm, 0.0), alpha=length)

    def _fresh(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        *leading, rows, columns = parameter.shape
        shapes = self._rule.slot_shapes((rows, columns))
        return {n: parameter.new_zeros(*leading, *shape) for n, shape in zip(M3_SLOTS, shapes, strict=True)}


def make_outer(model: HopeModel, schedule: ScheduleConfig) -> tuple[torch.optim.Optimizer, ...]:
    """The optimizers of a run, each over its own parameters.

    ``adamw``: all of them. ``m3``: the blocks' matrices; the embedding, convolutions, gates, vectors, rates and decays
    stay with AdamW, as Muon's users do it.
    """
    if schedule.optimizer == "adamw":
        return (_adamw(model, dict(model.named_parameters()), schedule),)
    named = dict(model.named_parameters())
    matrices = {n: p for n, p in named.items() if p.dim() > 1 and n.startswith("blocks.") and not _is_narrow(n)}
    rest = {n: p for n, p in named.items() if n not in matrices}
    m3 = M3(
        matrices.values(),
        MultiScaleMomentum(),
        lr=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
    )
    return m3, _adamw(model, rest, schedule)


def slots_of(optimizers: tuple[torch.optim.Optimizer, ...], model: HopeModel) -> dict[str, Tensor]:
    """Everything that the optimizers keep, as ``{slot}.{parameter}``."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{slot}.{names[id(parameter)]}": tensor
        for optimizer in optimizers
        for parameter, slots in optimizer.state.items()
        for slot, tensor in slots.items()
    }


def restore_slots(optimizers: tuple[torch.optim.Optimizer, ...], model: HopeModel, named: dict[str, Tensor]) -> None:
    """The opposite of ``slots_of``.

    Raises:
        ValueError: these are of another kind of optimizer.
    """
    parameters = dict(model.named_parameters())
    for optimizer in optimizers:
        slots = M3_SLOTS if isinstance(optimizer, M3) else ("step", "exp_avg", "exp_avg_sq")
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for name, parameter in parameters.items():
            if id(parameter) not in own:
                continue
            missing = [slot for slot in slots if f"{slot}.{name}" not in named]
            if missing:
                raise ValueError(
                    f"schedule.optimizer: what was saved lacks {missing[0]!r} of {name}: it is of a run with another "
                    "optimizer; choose another output, or go back to that optimizer"
                )
            optimizer.state[parameter] = {slot: named[f"{slot}.{name}"] for slot in slots}


def make_adamw(
    model: HopeModel, *, rate: float, rates_rate: float, weight_decay: float, only: Iterable[str] | None = None
) -> torch.optim.AdamW:
    """AdamW over three groups: matrices (decayed), vectors, and the levels' own rates and decays.

    ``only``: names of the parameters that it has; None is all of them.
    """
    chosen = None if only is None else frozenset(only)
    groups: dict[str, list[nn.Parameter]] = {"matrices": [], "vectors": [], "rates": []}
    for name, parameter in model.named_parameters():
        if chosen is None or name in chosen:
            is_rate = name.endswith(("log_rate", "decay_logit"))
            groups["rates" if is_rate else "matrices" if parameter.dim() > 1 else "vectors"].append(parameter)
    settings = {"matrices": (rate, weight_decay), "vectors": (rate, 0.0), "rates": (rates_rate, 0.0)}
    return torch.optim.AdamW(
        [
            {"params": groups[name], "lr": lr, "base": lr, "weight_decay": decay}
            for name, (lr, decay) in settings.items()
            if groups[name]
        ],
        betas=_BETAS,
        fused=model.embedding.is_cuda,
    )


def _adamw(model: HopeModel, named: Iterable[str], schedule: ScheduleConfig) -> torch.optim.AdamW:
    return make_adamw(
        model,
        rate=schedule.learning_rate,
        rates_rate=schedule.rate_learning_rate,
        weight_decay=schedule.weight_decay,
        only=named,
    )


def _is_narrow(name: str) -> bool:
    """Rows of four taps, two gates or two rates: no matrices to make orthogonal."""
    return name.endswith(("conv", "gates", "gate_bias", "gate_outer", "log_rate", "decay_logit"))
