"""Runs a plan on the model: which rows go together, and what the outcome means for each sequence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

import torch
from torch import Tensor

from hope_serve.engine.scheduler import Piece, Plan
from hope_serve.engine.sequence import Purpose, Sequence
from hope_serve.engine.slots import SlotPool
from hope_serve.model.hope import HopeModel

T = TypeVar("T")
Outcome = list[tuple[Sequence, Tensor]]


class Runner:
    """The model and its slots.

    Args:
        deterministic: run every sequence alone, so that its arithmetic is the same whoever else is there.
    """

    def __init__(self, model: HopeModel, slots: SlotPool, *, deterministic: bool) -> None:
        self._model, self._slots, self._alone = model, slots, deterministic
        self._chunk_sizes = model.config.titans.rule().chunk_sizes

    def run(self, plan: Plan) -> Outcome:
        """Compute one step; returns next-token logits [V] of every sequence that has seen all its tokens."""
        outcome: Outcome = []
        with torch.no_grad():
            for group in self._decode_groups(plan.decode):
                outcome += self._decode(group)
            for pieces in self._piece_groups(plan.pieces):
                outcome += self._feed(pieces)
        for sequence in plan.lessons:
            if sequence.lesson:
                sequence.lesson.step()
        return outcome

    def _decode_groups(self, sequences: list[Sequence]) -> Iterable[list[Sequence]]:
        if not sequences:
            return []
        if self._alone:
            return [[sequence] for sequence in sequences]
        ordered = sorted(sequences, key=lambda s: s.slot)
        if self._model.decodes_in_place:
            return [ordered]
        return _grouped(ordered, self._place)

    def _decode(self, sequences: list[Sequence]) -> Outcome:
        if not self._model.decodes_in_place:
            return self._feed([Piece(sequence, 1) for sequence in sequences])
        rows = self._slots.rows([s.slot for s in sequences])
        tokens = torch.tensor([s.tokens[s.num_fed] for s in sequences], device=self._model.embedding.device)
        hidden = self._model.decode(tokens, rows.state, deltas=rows.deltas)
        for sequence in sequences:
            sequence.num_fed += 1
        self._model.commit_full(rows.state, [s.consumed for s in sequences])
        self._slots.write(rows, rows.state)
        return list(zip(sequences, self._model.logits(hidden).float(), strict=True))

    def _piece_groups(self, pieces: list[Piece]) -> Iterable[list[Piece]]:
        if self._alone:
            return [[piece] for piece in pieces]
        return _grouped(pieces, self._shape)

    def _shape(self, piece: Piece) -> tuple[Hashable, ...]:
        """Pieces at the same place go together when none of them, padded, would pass a chunk boundary."""
        place = self._place(piece.sequence)
        room = min(size - at for size, at in zip(self._chunk_sizes, place, strict=True))
        fits = self._model.decodes_in_place and piece.length <= room and piece.sequence.purpose is not Purpose.SCORE
        return (place, 0 if fits else piece.length, piece.sequence.purpose is Purpose.SCORE)

    def _place(self, sequence: Sequence) -> tuple[int, ...]:
        return tuple(sequence.consumed % size for size in self._chunk_sizes)

    def _feed(self, pieces: list[Piece]) -> Outcome:
        """Feed one piece of each sequence; all stand at the same place in their chunks."""
        longest = max(piece.length for piece in pieces)
        device = self._model.embedding.device
        tokens = torch.tensor([_padded(piece, longest) for piece in pieces], device=device)
        ends = torch.tensor([piece.length for piece in pieces], device=device)
        ragged = any(piece.length != longest for piece in pieces)
        rows = self._slots.rows([piece.sequence.slot for piece in pieces])
        hidden, state = self._model(
            tokens,
            rows.state,
            consumed=pieces[0].sequence.consumed,
            lengths=ends if ragged else None,
            deltas=rows.deltas,
        )
        self._slots.write(rows, state)
        for piece, row in zip(pieces, hidden, strict=True):
            if piece.sequence.purpose is Purpose.SCORE:
                self._score(piece, row)
            piece.sequence.num_fed += piece.length
        done = [i for i, piece in enumerate(pieces) if not piece.sequence.num_unfed]
        if not done:
            return []
        last = hidden[done, ends[done] - 1]
        logits = self._model.logits(last).float()
        return [(pieces[i].sequence, row) for i, row in zip(done, logits, strict=True)]

    def _score(self, piece: Piece, hidden: Tensor) -> None:
        """Log-likelihood of each fed token's successor, from the prompt's last token on."""
        sequence = piece.sequence
        first = max(0, sequence.score_from - sequence.num_fed)
        targets = sequence.targets[sequence.num_fed + first : sequence.num_fed + piece.length]
        if not targets:
            return
        logprobs = torch.log_softmax(self._model.logits(hidden[first : piece.length]).float(), -1)
        wanted = torch.tensor(targets, device=logprobs.device)
        sequence.token_logprobs += logprobs.gather(1, wanted[:, None])[:, 0].tolist()
        sequence.greedy_hits += (logprobs.argmax(-1) == wanted).tolist()


def _padded(piece: Piece, length: int) -> list[int]:
    sequence = piece.sequence
    tokens = sequence.tokens[sequence.num_fed : sequence.num_fed + piece.length]
    return tokens + [0] * (length - piece.length)


def _grouped(items: list[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    groups: dict[Hashable, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return list(groups.values())
