"""Everything that slots hold, at fixed addresses: what sequences carry, their memories, and how tokens are drawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from hope_kernels.sample.rows import SamplingRows
from torch import Tensor

from hope_serve.api import MAX_LOGIT_BIAS, MAX_STOPS, SamplingParams
from hope_serve.api.engine import Purpose
from hope_serve.engine.ownership import Ownership
from hope_serve.engine.sequence import History, Sequence
from hope_serve.engine.slots import SlotTable
from hope_serve.model.serving.model import ServedModel
from hope_serve.model.serving.slab import Slab


class Pools:
    """The slots of one device. Only the thread that made them touches them.

    Args:
        poison: fill a slot that is given back with NaN, so that whoever reads it by mistake is found.
    """

    def __init__(self, model: ServedModel, num_slots: int, *, poison: bool = False) -> None:
        self._owner = Ownership()
        self._device, self._poison, self._rereads = model.device, poison, model.kind.rereads
        on_device = model.device.type == "cuda"
        self._copies = torch.cuda.Stream() if on_device else None  # type: ignore[no-untyped-call]
        self.table = SlotTable(num_slots)
        self._last_slots: tuple[list[int], Tensor] = [], torch.empty(0, dtype=torch.int32, device=model.device)
        device = str(model.device)
        self.state = model.state_pool(num_slots)
        self.delta_rows = Slab(model.delta_layout(model.precision.deltas), num_slots, device=device)
        self.deltas = model.bind_deltas(self.delta_rows.views)
        self.sampling = SamplingRows.fresh(
            num_slots + 1,
            model.config.vocab_size,
            max_stops=MAX_STOPS + 1,  # those that a request names, and the text's own end
            max_biases=MAX_LOGIT_BIAS,
            device=model.device,
        )
        self.remembers = torch.zeros(num_slots + 1, dtype=torch.uint8, device=model.device)
        self.last_token = torch.zeros(num_slots + 1, dtype=torch.int64, device=model.device)

    def owned(self) -> None:
        """The device has one owner."""
        self._owner.check()

    def take(self, sequence: Sequence) -> None:
        """Give a starting sequence and its forks their slots, and begin to fill them."""
        self.owned()
        with self._arriving(sequence):
            for holder in (sequence, *sequence.forks):
                holder.slot, held = self.table.take(holder, sequence.start.memory)
                if not held:
                    self.bring(holder.slot, holder.start.memory)
            self.load(sequence)

    def await_all(self, sequences: list[Sequence]) -> None:
        """Let the device wait for what these sequences' slots are being filled with."""
        for sequence in sequences:
            if sequence.is_arriving:
                torch.cuda.current_stream().wait_event(sequence.arrives)  # type: ignore[arg-type]

    @contextmanager
    def _arriving(self, sequence: Sequence) -> Iterator[None]:
        """What is copied inside goes beside the device's other work, behind all that may still use the slots."""
        if self._copies is None:
            yield
            return
        self._copies.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._copies):
            yield
            arrives = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrives.record()
        for holder in (sequence, *sequence.forks):
            holder.arrives = arrives

    def load(self, sequence: Sequence) -> None:
        """Put a sequence's slot where its start, and what it has drawn, leave off."""
        self.owned()
        state = sequence.start.state if sequence.put_aside is None else sequence.put_aside
        sequence.put_aside = None
        if state is None:
            self.state.clear(sequence.slot)
        else:
            self.state.load(sequence.slot, state)
        if sequence.drawn:
            self.last_token[sequence.slot] = sequence.drawn[-1].token
        self.ready_to_draw(sequence)

    def put_aside(self, sequence: Sequence) -> None:
        """Let a sequence that gives its slot back go on from its state later; a large one is read again instead."""
        if sequence.num_fed and not self._rereads:
            sequence.put_aside = self.state.save(sequence.slot)
        else:
            sequence.restart()
        self.release(sequence)

    def bring(self, slot: int, memory: Tensor | None) -> None:
        """Put a memory, or none, into a slot."""
        self.owned()
        if memory is None:
            self.delta_rows.clear(slot)
        else:
            self.delta_rows.load(slot, memory)
        self.remembers[slot] = memory is not None

    def ready_to_draw(self, sequence: Sequence) -> None:
        """Set the rules by which a slot's tokens are drawn."""
        self.owned()
        rows, slot, sampling = self.sampling, sequence.slot, sequence.sampling
        set_row(rows, slot, sampling, key=sequence.draw_key, end_ids=sequence.end_ids)
        rows.position[slot] = len(sequence.drawn)
        rows.counts[slot] = 0
        rows.in_prompt[slot] = 0
        if sampling.repetition_penalty != 1:
            rows.in_prompt[slot, self._ids(sorted(set(sequence.tokens[: sequence.num_prompt])))] = 1
        if sequence.drawn:
            drawn = self._ids([drawn.token for drawn in sequence.drawn])
            ids, counts = torch.unique(drawn, return_counts=True)
            rows.counts[slot, ids] = counts.to(rows.counts.dtype)

    def fork(self, source: Sequence, target: Sequence) -> None:
        """Let a further choice go on where a prompt has ended."""
        self.owned()
        self.state.copy(source.slot, target.slot)
        self.ready_to_draw(target)

    def save(self, sequence: Sequence) -> Tensor | History:
        """What a sequence's state is kept as, on the host: for a conversation, its ids where they are read again."""
        self.owned()
        if self._rereads and sequence.purpose is Purpose.GENERATE:
            return History(tokens=tuple(sequence.tokens))
        return self.state.save(sequence.slot)

    def release(self, holder: Sequence) -> None:
        """Take a slot back."""
        self.owned()
        if not holder.slot:
            return
        if self._poison:
            self.state.poison(holder.slot)
        self.table.release(holder.slot, holder)
        holder.slot = 0

    def slots_of(self, sequences: list[Sequence], count: int | None = None) -> Tensor:
        """[count] int32 on the device, padded with slot 0; nobody writes to it.

        From step to step they are mostly the same, and stay where they are.
        """
        slots = [s.slot for s in sequences]
        slots += [0] * ((count or len(slots)) - len(slots))
        if slots != self._last_slots[0]:
            self._last_slots = slots, self.on_device(slots, torch.int32)
        return self._last_slots[1]

    def on_device(self, values: list[Any], dtype: torch.dtype) -> Tensor:
        """Numbers from the host, without waiting for the device."""
        if self._device.type == "cpu":
            return torch.tensor(values, dtype=dtype)
        return torch.tensor(values, dtype=dtype, pin_memory=True).to(self._device, non_blocking=True)

    def _ids(self, ids: list[int]) -> Tensor:
        return self.on_device(ids, torch.int64)


def set_row(rows: SamplingRows, slot: int, sampling: SamplingParams, *, key: int, end_ids: frozenset[int]) -> None:
    """Write one request's parameters into a slot's row."""
    rows.temperature[slot] = 0.0 if sampling.is_greedy else sampling.temperature
    rows.top_p[slot] = sampling.top_p
    rows.min_p[slot] = sampling.min_p
    rows.top_k[slot] = min(sampling.top_k, 2**31 - 1)
    rows.repetition_penalty[slot] = sampling.repetition_penalty
    rows.presence_penalty[slot] = sampling.presence_penalty
    rows.frequency_penalty[slot] = sampling.frequency_penalty
    rows.seed[slot] = key - 2**64 if key >= 2**63 else key
    rows.min_tokens[slot] = sampling.min_tokens
    _fill(rows.stop_ids[slot], sorted(end_ids), -1)
    _fill(rows.bias_ids[slot], [token for token, _ in sampling.logit_bias], -1)
    _fill(rows.bias_values[slot], [bias for _, bias in sampling.logit_bias], 0.0)


def _fill(row: Tensor, values: list[Any], rest: float) -> None:
    row.fill_(rest)
    if values:
        row[: len(values)] = torch.tensor(values, dtype=row.dtype, device=row.device)
