"""Runs the parts of a plan on the model: tokens in, drawn tokens on their way to the host out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate, product

import torch
from hope_kernels.sample.op import sample
from torch import Tensor

from hope_serve.api.engine import Purpose
from hope_serve.engine.drawn import Drawn, Packed, Scored, ToHost
from hope_serve.engine.graphs import DecodeGraphs
from hope_serve.engine.pools import Pools
from hope_serve.engine.scheduler import Piece, Plan
from hope_serve.engine.sequence import Sequence
from hope_serve.engine.threads import IntraOpThreads
from hope_serve.model.serving.batch import Batch
from hope_serve.model.serving.model import ServedModel

SCORED_AT_ONCE = 256
"""Rows whose logits are in memory together."""
WARM_COUNTS = (1, 2, 16)
WARM_LENGTHS = (1, 3, 16)
"""Of the prompts that are read when an engine starts."""


@dataclass(frozen=True)
class Group:
    """Sequences that one pass computes: the next token of each, or pieces of what they are known to say."""

    decode: list[Sequence] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)

    @property
    def sequences(self) -> list[Sequence]:
        """Everybody in it."""
        return self.decode or [piece.sequence for piece in self.pieces]

    @property
    def num_tokens(self) -> int:
        """How many the pass feeds."""
        return len(self.decode) or sum(piece.length for piece in self.pieces)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a group's pass gave."""

    drawn: Drawn | None = None
    scored: tuple[Scored, ...] = ()


class Runner:
    """The model and the pools.

    Args:
        deterministic: run every sequence alone, so that its arithmetic is the same whoever else is there.
    """

    def __init__(self, model: ServedModel, pools: Pools, *, deterministic: bool) -> None:
        self._model, self._pools, self._alone = model, pools, deterministic
        self._cut_tokens = model.kind.cut_tokens
        on_device = model.device.type == "cuda"
        self._graphs = DecodeGraphs(model, pools) if on_device else None
        self._threads = IntraOpThreads(constant=deterministic or on_device)
        # On a CPU a step is its operations' overhead, of which inference mode leaves less; a graph has none.
        self._without_gradients = torch.no_grad if on_device else torch.inference_mode

    @torch.no_grad()
    def warm_up(self) -> None:
        """Read made-up prompts in nobody's slot, so that what is made on first use is made before anybody waits.

        Kernels are compiled for one row or sequence, for numbers that 16 divides and for others.
        """
        self._pools.owned()
        for count, length in product(WARM_COUNTS, WARM_LENGTHS):
            slots = self._pools.on_device([0] * count, torch.int32)
            batch = Batch(
                tokens=self._pools.on_device([0] * (count * length), torch.int64),
                slots=slots,
                starts=self._pools.on_device(list(range(0, count * length + 1, length)), torch.int32),
                remembers=self._pools.remembers,
            )
            hidden = self._model.run(batch, self._pools.state, self._pools.deltas)
            sample(self._model.logits(hidden[length - 1 :: length]), slots, self._pools.sampling)

    def groups(self, plan: Plan) -> Iterator[Group]:
        """The passes of a plan: sequences together, but for those that run alone."""
        alone = [s for s in plan.decode if self._alone or s.runs_alone]
        together = [s for s in plan.decode if not (self._alone or s.runs_alone)]
        yield from (Group(decode=[s]) for s in alone)
        if together:
            yield Group(decode=together)
        lone = [p for p in plan.pieces if self._alone or p.sequence.runs_alone]
        shared = [p for p in plan.pieces if not (self._alone or p.sequence.runs_alone)]
        yield from (Group(pieces=[p]) for p in lone)
        if shared:
            yield Group(pieces=shared)

    def run(self, group: Group) -> Outcome:
        """Compute one pass; the sequences' slots move on."""
        self._pools.owned()
        self._pools.await_all(group.sequences)
        with self._without_gradients(), self._threads.of(group.num_tokens):
            return self._decode(group.decode) if group.decode else self._read(group.pieces)

    def check_device(self) -> None:
        """Raise what a lost device raises."""
        if self._model.device.type == "cuda":
            torch.cuda.synchronize()

    def _decode(self, sequences: list[Sequence]) -> Outcome:
        fills_chunk = any((s.consumed + 1) % size == 0 for s in sequences for size in self._cut_tokens)
        if self._graphs:
            packed = self._graphs.run(sequences, fills_chunk=fills_chunk, num_top=_num_top(sequences))
        else:
            slots = self._pools.slots_of(sequences)
            batch = Batch(
                tokens=self._pools.last_token[slots],
                slots=slots,
                remembers=self._pools.remembers,
                reads_memory=self._reads_memory(sequences),
                fills_chunk=fills_chunk,
            )
            packed = self._draw(self._model.run(batch, self._pools.state, self._pools.deltas), slots, sequences)
        for sequence in sequences:
            sequence.launched_decode()
        return Outcome(drawn=Drawn.of(sequences, packed))

    def _read(self, pieces: list[Piece]) -> Outcome:
        """Feed one piece of each sequence; those whose last token it holds draw the next."""
        sequences = [piece.sequence for piece in pieces]
        ends = list(accumulate(piece.length for piece in pieces))
        batch = Batch(
            tokens=self._pools.on_device([token for piece in pieces for token in _tokens(piece)], torch.int64),
            slots=self._pools.slots_of(sequences),
            starts=self._pools.on_device([0, *ends], torch.int32),
            remembers=self._pools.remembers,
            reads_memory=self._reads_memory(sequences),
        )
        hidden = self._model.run(batch, self._pools.state, self._pools.deltas)
        scored = [
            score
            for piece, end in zip(pieces, ends, strict=True)
            if piece.sequence.purpose is Purpose.SCORE
            for score in self._score(piece, hidden[end - piece.length : end])
        ]
        for piece in pieces:
            piece.sequence.launched_piece(piece.length)
        rows = [(s, end - 1) for s, end in zip(sequences, ends, strict=True) if s.num_launched > len(s.drawn)]
        return Outcome(drawn=self._begin(hidden, rows), scored=tuple(scored))

    def _begin(self, hidden: Tensor, rows: list[tuple[Sequence, int]]) -> Drawn | None:
        """Draw for sequences whose prompt has been fed, and for the choices that share it."""
        rows = [(started, row) for sequence, row in rows for started in (sequence, *self._fork(sequence))]
        if not rows:
            return None
        sequences = [sequence for sequence, _ in rows]
        index = self._pools.on_device([row for _, row in rows], torch.int64)
        return Drawn.of(sequences, self._draw(hidden[index], self._pools.slots_of(sequences), sequences))

    def _fork(self, sequence: Sequence) -> list[Sequence]:
        for fork in sequence.forks:
            self._pools.fork(sequence, fork)
            fork.num_fed, fork.num_launched = sequence.num_fed, sequence.num_launched
            fork.started_at, fork.runs_alone = sequence.started_at, sequence.runs_alone
        return sequence.forks

    def _draw(self, hidden: Tensor, slots: Tensor, sequences: list[Sequence]) -> Packed:
        logits = self._model.logits(hidden)
        sampled = sample(logits, slots, self._pools.sampling, num_top=_num_top(sequences))
        self._pools.last_token[slots] = sampled.token_B
        return Packed.of(sampled)

    def _score(self, piece: Piece, hidden: Tensor) -> Iterator[Scored]:
        """Log-likelihood of each fed token's successor, from the prompt's last token on."""
        sequence = piece.sequence
        first = max(0, sequence.score_from - sequence.num_fed)
        targets = sequence.targets[sequence.num_fed + first : sequence.num_fed + piece.length]
        for at in range(0, len(targets), SCORED_AT_ONCE):
            wanted = self._pools.on_device(targets[at : at + SCORED_AT_ONCE], torch.int64)
            rows = hidden[first + at : first + at + len(wanted)]
            logprobs = torch.log_softmax(self._model.logits(rows), -1)
            found = (logprobs.gather(1, wanted[:, None])[:, 0], logprobs.argmax(-1) == wanted)
            yield Scored(sequence=sequence, copies=ToHost(found))

    def _reads_memory(self, sequences: list[Sequence]) -> bool:
        return any(s.start.memory is not None for s in sequences)


def _tokens(piece: Piece) -> list[int]:
    sequence = piece.sequence
    return sequence.tokens[sequence.num_fed : sequence.num_fed + piece.length]


def _num_top(sequences: list[Sequence]) -> int:
    return max((s.sampling.logprobs or 0 for s in sequences), default=0)
