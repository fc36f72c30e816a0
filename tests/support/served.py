"""A served model with its pools, and short ways to feed them."""

from __future__ import annotations

import torch

from hope_serve.model.cms import Delta
from hope_serve.model.serving.batch import Batch
from hope_serve.model.serving.model import ServedModel
from hope_serve.model.serving.precision import Precision
from hope_serve.model.serving.slab import Slab


class Served:
    """``model`` in serving form, with ``num_slots`` slots."""

    def __init__(self, model, num_slots, *, device="cpu", precision=None):
        dtype = getattr(model, "weights", model).embedding.dtype
        precision = precision or Precision(compute=dtype, state=dtype, ring=dtype, deltas=dtype)
        self.device = device
        self.model = ServedModel(model, device=device, precision=precision)
        self.rows = self.model.state_pool(num_slots)
        self.memories = Slab(self.model.delta_layout(precision.deltas), num_slots, device=device)
        for slot in range(num_slots + 1):
            self.rows.clear(slot)
        self.deltas = self.model.bind_deltas(self.memories.views)

    def remember(self, slots, deltas):
        """Put the sequences' deltas, batch by batch entry, into their slots."""
        for i, pair in enumerate(deltas):
            for side, tensor in zip(Delta._fields, pair, strict=True):
                if not tensor.shape[-2]:
                    continue
                view = self.memories.views[f"{i}.delta.{side}"]
                view[list(slots)] = tensor.to(view)

    def feed(self, runs):
        """Feed ``{slot: ids}`` as one ragged batch; hidden rows by slot."""
        counts = [len(ids) for ids in runs.values()]
        starts = torch.tensor([0, *counts], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        batch = Batch(
            tokens=torch.cat([torch.as_tensor(ids) for ids in runs.values()]).to(self.device),
            slots=torch.tensor(list(runs), dtype=torch.int32, device=self.device),
            starts=starts.to(self.device),
        )
        hidden = self.model.run(batch, self.rows, self.deltas)
        return dict(zip(runs, hidden.split(counts), strict=True))

    def step(self, tokens, *, padding=0):
        """One token each of ``{slot: id}``, with padding behind; hidden rows by slot."""
        batch = Batch(
            tokens=torch.tensor([*tokens.values(), *[0] * padding], device=self.device),
            slots=torch.tensor([*tokens, *[0] * padding], dtype=torch.int32, device=self.device),
        )
        return dict(zip(tokens, self.model.run(batch, self.rows, self.deltas), strict=False))
