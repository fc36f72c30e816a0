"""What users have learned, on the host: everything a memory is made of, and the row of bytes that generation reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hope_serve.engine.plan import memory_bytes
from hope_serve.model.cadence import Cadence
from hope_serve.model.cms_state import CmsState, cadence_of, cms_shapes, delta_shapes
from hope_serve.model.learn import read_deltas
from hope_serve.model.serving.kind import Kind
from hope_serve.model.serving.precision import Precision
from hope_serve.model.serving.slab import Part, SlabLayout


class MemoryForm:
    """How one model's memories lie on the host.

    Values are rounded to the model's ``memory_dtype`` before anybody reads them, so that a memory that was never
    stored and one that was restored agree to the bit.
    """

    def __init__(self, kind: Kind, precision: Precision, *, pinned: bool) -> None:
        config = kind.config
        self.config, self.kind = config, kind
        self.dtype: torch.dtype = getattr(torch, config.memory_dtype)
        self._pinned = pinned
        self.rules = kind.rules()
        self.shapes = cms_shapes(config)
        self._learning = SlabLayout({n: Part(shape, torch.float32) for n, shape in self.shapes.items()})
        self._reading = SlabLayout({n: Part(shape, precision.deltas) for n, shape in delta_shapes(config).items()})

    def blank(self) -> Learned:
        """A memory that has learned nothing."""
        named = {name: torch.zeros(1, *shape, dtype=self.dtype) for name, shape in self.shapes.items()}
        return Learned(form=self, cms=CmsState.of(self.config, named), cadence=self.cadence(0))

    def cadence(self, tokens: int, skipped: int = 0) -> Cadence:
        """Where the levels' chunks stand after ``tokens`` and ``skipped`` places."""
        return cadence_of(self.config, tokens=tokens, skipped=skipped)

    def learning_row(self, cms: CmsState) -> Tensor:
        """What a lesson begins with."""
        return self._learning.row({name: tensor[0] for name, tensor in cms.tensors().items()}, pinned=self._pinned)

    def of_learning_row(self, row: Tensor) -> CmsState:
        """What a lesson has led to; every value fits ``dtype``."""
        named = {name: tensor[None].to(self.dtype) for name, tensor in self._learning.of_row(row).items()}
        return CmsState.of(self.config, named)

    @torch.no_grad()
    def reading_row(self, learned: Learned) -> Tensor:
        """What generation reads; open chunks count as if they ended here."""
        deltas = read_deltas(self.rules, learned.cms.map(Tensor.float), learned.cadence)
        named = {f"{i}.delta.{s}": getattr(pair, s)[0] for i, pair in enumerate(deltas) for s in pair._fields}
        return self._reading.row(named, pinned=self._pinned)

    def reading(self, row: Tensor) -> dict[str, Tensor]:
        """The parts of what generation reads, [L, rows, columns] each."""
        return self._reading.of_row(row)

    @property
    def memory_bytes(self) -> int:
        """Bytes of one memory in the store, open accumulators included."""
        return memory_bytes(self.config)

    @property
    def warm_bytes(self) -> int:
        """Bytes of one memory that is at hand: all of it, and the row that generation reads."""
        return self.memory_bytes + self._reading.num_bytes


@dataclass(frozen=True, kw_only=True)
class Learned:
    """Everything one memory is made of, batch of one, in the memory's own dtype; and the tokens behind it."""

    form: MemoryForm
    cms: CmsState
    cadence: Cadence

    def row(self) -> Tensor:
        """What a lesson begins with, as the device takes it."""
        return self.form.learning_row(self.cms)

    def reads(self) -> Tensor:
        """What generation reads, as the device takes it."""
        return self.form.reading_row(self)

    def moved_to(self, row: Tensor, cadence: Cadence) -> Learned:
        """The memory that a lesson has led to."""
        return Learned(form=self.form, cms=self.form.of_learning_row(row), cadence=cadence)
