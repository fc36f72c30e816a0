"""Runs a plan on the model: which rows go together, and what the outcome means for each sequence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from hope_serve.engine.scheduler import Piece, Plan
from hope_serve.engine.sequence import Purpose, Sequence
from hope_serve.engine.slots import SlotPool
from hope_serve.model.hope import HopeModel

T = TypeVar("T")
Outcome = list[tuple[Sequence, Tensor]]

SCORED_AT_ONCE = 256
"""Tokens whose logits over the whole vocabulary are in memory at a time."""


@dataclass(frozen=True)
class Group:
    """Pieces that the model computes together; ``decodes``: one token each, in place."""

    pieces: list[Piece]
    decodes: bool


class Runner:
    """The model and its slots.

    Args:
        deterministic: run every sequence alone, so that its arithmetic is the same whoever else is there.
    """

    def __init__(self, model: HopeModel, slots: SlotPool, *, deterministic: bool) -> None:
        self._model, self._slots, self._alone = model, slots, deterministic
        self._chunk_sizes = model.config.titans.rule().chunk_sizes

    def groups(self, plan: Plan) -> list[Group]:
        """What of a plan runs together; lessons apart."""
        decoding = [Piece(sequence, 1) for sequence in sorted(plan.decode, key=lambda s: s.slot)]
        in_place = self._model.decodes_in_place
        groups = [Group(pieces, decodes=in_place) for pieces in self._grouped(decoding, self._decode_key)]
        return groups + [Group(pieces, decodes=False) for pieces in self._grouped(plan.pieces, self._shape)]

    @torch.no_grad()
    def run(self, group: Group) -> Outcome:
        """Compute one group; returns next-token logits [V] of every generation that has seen all its tokens.

        When it raises, a group that does not decode in place has left its slots as they were.
        """
        return self._decode([piece.sequence for piece in group.pieces]) if group.decodes else self._feed(group.pieces)

    def check_device(self) -> None:
        """Raises what the device raises when it is lost, as after an illegal access: no later work can succeed."""
        if self._model.embedding.is_cuda:
            torch.cuda.synchronize(self._model.embedding.device)

    def _decode(self, sequences: list[Sequence]) -> Outcome:
        rows = self._slots.rows([s.slot for s in sequences])
        tokens = torch.tensor([s.tokens[s.num_fed] for s in sequences], device=self._model.embedding.device)
        hidden = self._model.decode(tokens, rows.state, deltas=rows.deltas)
        for sequence in sequences:
            sequence.num_fed += 1
        self._model.commit_full(rows.state, [s.consumed for s in sequences])
        self._slots.write(rows, rows.state)
        return list(zip(sequences, self._model.logits(hidden).float(), strict=True))

    def _grouped(self, pieces: list[Piece], key: Callable[[Piece], Hashable]) -> list[list[Piece]]:
        alone = [[piece] for piece in pieces if self._alone or piece.sequence.runs_alone]
        together = [piece for piece in pieces if not (self._alone or piece.sequence.runs_alone)]
        return alone + _grouped(together, key)

    def _decode_key(self, piece: Piece) -> Hashable:
        return () if self._model.decodes_in_place else self._place(piece.sequence)

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
        for piece, row in zip(pieces, hidden, strict=True):
            if piece.sequence.purpose is Purpose.SCORE:
                self._score(piece, row)
        outcome = self._next_logits(pieces, hidden)
        self._slots.write(rows, state)
        for piece in pieces:
            piece.sequence.num_fed += piece.length
        return outcome

    def _next_logits(self, pieces: list[Piece], hidden: Tensor) -> Outcome:
        """Of the generations that these pieces complete."""
        done = [
            (i, piece.length - 1)
            for i, piece in enumerate(pieces)
            if piece.sequence.purpose is Purpose.GENERATE and piece.length == piece.sequence.num_unfed
        ]
        if not done:
            return []
        at, last = zip(*done, strict=True)
        logits = self._model.logits(hidden[list(at), list(last)]).float()
        return [(pieces[i].sequence, row) for i, row in zip(at, logits, strict=True)]

    def _score(self, piece: Piece, hidden: Tensor) -> None:
        """Log-likelihood of each fed token's successor, from the prompt's last token on."""
        sequence = piece.sequence
        first = max(0, sequence.score_from - sequence.num_fed)
        targets = sequence.targets[sequence.num_fed + first : sequence.num_fed + piece.length]
        for at in range(0, len(targets), SCORED_AT_ONCE):
            wanted = torch.tensor(targets[at : at + SCORED_AT_ONCE], device=hidden.device)
            rows = hidden[first + at : first + at + len(wanted)]
            logprobs = torch.log_softmax(self._model.logits(rows).float(), -1)
            found = logprobs.gather(1, wanted[:, None])[:, 0]
            if found.isnan().any():
                raise FloatingPointError("the model's logits are not numbers")
            sequence.token_logprobs += found.tolist()
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
