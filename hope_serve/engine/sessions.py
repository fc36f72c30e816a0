"""What a conversation is kept as between two turns: the state itself where it is small, its token ids where not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from hope_serve.engine.sequence import History
from hope_serve.model.serving.kind import Kind
from hope_serve.model.serving.precision import Precision
from hope_serve.model.serving.slab import SlabLayout
from hope_serve.model.serving.titans_kind import TitansKind


class SessionForm(Protocol):
    """Turns what a conversation carries into tensors by name, and back."""

    def tensors(self, state: Any) -> dict[str, Tensor]:
        """Of what a sequence has ended with."""
        ...

    def state(self, named: Mapping[str, Tensor]) -> Any:
        """What a sequence begins with; of another precision, it is converted."""
        ...


@dataclass(frozen=True)
class RowSessions:
    """A row of a pool, part by part, each with an axis of one sequence."""

    layout: SlabLayout

    def tensors(self, state: Tensor) -> dict[str, Tensor]:
        """See ``SessionForm.tensors``."""
        return {name: part[None] for name, part in self.layout.of_row(state).items()}

    def state(self, named: Mapping[str, Tensor]) -> Tensor:
        """See ``SessionForm.state``."""
        return self.layout.row({name: named[name][0] for name in self.layout.parts})


class TokenSessions:
    """The ids of all that was read and drawn, as ``tokens`` [1, n] int32: a few KB, to be read again anywhere."""

    def tensors(self, state: History) -> dict[str, Tensor]:
        """See ``SessionForm.tensors``."""
        return {"tokens": torch.tensor([state.tokens], dtype=torch.int32)}

    def state(self, named: Mapping[str, Tensor]) -> History:
        """See ``SessionForm.state``."""
        return History(tokens=tuple(named["tokens"][0].tolist()))


def session_form(kind: Kind, precision: Precision) -> SessionForm:
    """How conversations with a model of this kind are kept."""
    return RowSessions(kind.state_layout(precision)) if isinstance(kind, TitansKind) else TokenSessions()
