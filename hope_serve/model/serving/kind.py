"""What serving asks of a model, whatever its layers are: a layer kind brings its weights, its state and its ops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from hope_serve.model.cms import Delta
from hope_serve.model.cms_state import LearningModel
from hope_serve.model.learn import Rules
from hope_serve.model.serving.batch import Batch
from hope_serve.model.serving.precision import Precision, StatedPrecision
from hope_serve.model.serving.product import Shared


class ServedConfig(LearningModel, StatedPrecision, Protocol):
    """What is known of a model before its weights are."""

    @property
    def name(self) -> str:
        """The checkpoint's."""
        ...

    @property
    def vocab_size(self) -> int:
        """V."""
        ...


class StatePool(Protocol):
    """What sequences carry from token to token, by slot; slot 0 is nobody's."""

    @property
    def layers(self) -> Sequence[Any]:
        """One layer's state of every slot each, as its mixer takes it."""
        ...

    def begin(self, batch: Batch) -> Any:
        """What the layers of one pass share; given to each of them."""
        ...

    def end(self, batch: Batch, shared: Any) -> None:
        """Every layer has read the batch."""
        ...

    def clear(self, slot: int) -> None:
        """Make a slot as before its first token."""
        ...

    def load(self, slot: int, row: Tensor) -> None:
        """Fill a slot with what ``save`` gave."""
        ...

    def save(self, slot: int) -> Tensor:
        """What a slot holds, on the host; waits for the device."""
        ...

    def copy(self, source: int, target: int) -> None:
        """Make one slot the twin of another."""
        ...

    def poison(self, slot: int) -> None:
        """Fill a slot with NaN, so that whoever reads it by mistake is found."""
        ...


class Mixer(Protocol):
    """What mixes the tokens of a sequence in one layer."""

    def run(self, x: Tensor, batch: Batch, state: Any, shared: Any) -> Tensor:
        """x: [N, d] to [N, d]; the layer's ``state`` moves in place."""
        ...

    def shared(self) -> list[Shared]:
        """The matrices that everybody's rows are multiplied by."""
        ...

    def initial(self) -> list[Tensor]:
        """What memories of the layer's own start from."""
        ...


class Level(Protocol):
    """An MLP that a memory may move."""

    @property
    def online(self) -> bool:
        """Whether one may."""
        ...

    def run(self, x: Tensor, batch: Batch, delta: Delta | None) -> Tensor:
        """x: [N, d] to [N, d]. ``delta``: the level's pools in this layer; None reads it as trained."""
        ...

    def shared(self) -> list[Shared]:
        """The matrices that everybody's rows are multiplied by."""
        ...


class ServedLayer(NamedTuple):
    """h + mixer(norm(h)), then h + level(norm(h)) from fast to slow."""

    mixer_norm: Tensor
    mixer: Mixer
    level_norms: tuple[Tensor, ...]
    levels: tuple[Level, ...]


@dataclass(frozen=True, kw_only=True)
class ServedParts:
    """A model on its device. weigher: the linear map (weight [1, d], bias [1]) of a token's weight, None for 1."""

    embedding: Tensor
    head: Shared
    norm: Tensor
    norm_eps: float
    layers: tuple[ServedLayer, ...]
    weigher: tuple[Tensor, Tensor] | None
    rules: Rules


class Kind(Protocol):
    """A model of one kind of layers."""

    @property
    def config(self) -> ServedConfig:
        """What the model says of itself."""
        ...

    @property
    def num_heads(self) -> int:
        """Of a layer."""
        ...

    @property
    def num_parameters(self) -> int:
        """Numbers that were trained."""
        ...

    @property
    def cut_tokens(self) -> tuple[int, ...]:
        """Prompts cut at multiples of all of these give the same bits whoever else is there."""
        ...

    @property
    def max_context_tokens(self) -> int:
        """Tokens that a sequence may have behind it; 0 is any number."""
        ...

    @property
    def rereads(self) -> bool:
        """Whether a conversation is kept as its token ids, since its state is large."""
        ...

    @property
    def captures_lessons(self) -> bool:
        """Whether segments of one length can replay a CUDA graph."""
        ...

    def rules(self) -> Rules:
        """How the online levels move, on the CPU."""
        ...

    def drift(self, level: int, delta: Delta) -> float:
        """Norm of what a delta [1, L, ...] adds to its level over that of the weights it moves."""
        ...

    def parts(self, device: str, precision: Precision) -> ServedParts:
        """The model where it runs."""
        ...

    def state_bytes(self, precision: Precision, max_tokens: int) -> int:
        """Bytes of one slot's state."""
        ...

    def learning_bytes(self, precision: Precision) -> int:
        """Bytes that are kept for one token of a lesson until its gradient is there, about."""
        ...

    def state_traffic(self, precision: Precision) -> dict[str, int]:
        """Bytes of state that a decode step moves for one sequence, on average, by part of a step."""
        ...

    def pool(
        self, layers: Sequence[ServedLayer], num_slots: int, *, device: str, precision: Precision, max_tokens: int
    ) -> StatePool:
        """The state of ``num_slots`` slots and of slot 0, each of up to ``max_tokens`` tokens."""
        ...
