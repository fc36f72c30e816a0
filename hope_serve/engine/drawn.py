"""What a step drew, on its way from the device to the host."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import torch
from hope_kernels.sample.rows import Sampled
from torch import Tensor

from hope_serve.api import TokenLogprob
from hope_serve.engine.sequence import Sequence


class ToHost:
    """Tensors that are being copied to the host; ``wait`` gives them. On a CPU there is nothing to wait for."""

    def __init__(self, tensors: Seq[Tensor]) -> None:
        self._event = None
        if not any(t.is_cuda for t in tensors):
            self._tensors = tuple(tensors)
            return
        self._tensors = tuple(
            torch.empty(t.shape, dtype=t.dtype, pin_memory=True).copy_(t, non_blocking=True) for t in tensors
        )
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._event.record()

    def wait(self) -> tuple[Tensor, ...]:
        """The tensors, on the host."""
        if self._event is not None:
            self._event.synchronize()
        return self._tensors


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What a step drew, in as few tensors as can be: every operation on one gives the interpreter away.

    rows: [3, B] int32, each row's token, its log-probability's bits, and 1 where its logits were numbers; top_ids and
    top_logprobs: [B, N], the likeliest tokens, where they are wanted.
    """

    rows: Tensor
    top: tuple[Tensor, ...] = ()

    @classmethod
    def of(cls, sampled: Sampled) -> Packed:
        """Together, on the device."""
        bits = sampled.logprob_B.view(torch.int32)
        rows = torch.stack([sampled.token_B.int(), bits, sampled.is_number_B.int()])
        top = (sampled.top_ids_BN, sampled.top_logprobs_BN) if sampled.top_ids_BN.shape[1] else ()
        return cls(rows=rows, top=top)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One token for each of ``sequences``."""

    sequences: list[Sequence]
    copies: ToHost

    @classmethod
    def of(cls, sequences: list[Sequence], packed: Packed) -> Drawn:
        """Begin to copy what was drawn; rows behind the sequences are padding."""
        return cls(sequences=sequences, copies=ToHost((packed.rows, *packed.top)))

    def tokens(self) -> list[tuple[Sequence, TokenLogprob | None]]:
        """Every sequence's token; None where its logits were not numbers."""
        packed, *top = self.copies.wait()
        rows = packed.numpy()  # it can be taken apart without giving the interpreter away
        drawn = (rows[0].tolist(), rows[1].view(np.float32).tolist(), rows[2].tolist())
        ids, values = (part.tolist() for part in top) if top else (repeat(()), repeat(()))
        return [
            (s, TokenLogprob(token=t, logprob=p, top=_ranked(s, i, v) if i else ()) if good else None)
            for s, t, p, good, i, v in zip(self.sequences, *drawn, ids, values, strict=False)
        ]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The likelihoods of tokens of one sequence, and whether each was the likeliest."""

    sequence: Sequence
    copies: ToHost

    def note(self) -> None:
        """Tell the sequence.

        Raises:
            FloatingPointError: the logits were not numbers.
        """
        logprobs, hits = self.copies.wait()
        if logprobs.isnan().any():
            raise FloatingPointError("the model's logits are not numbers")
        self.sequence.token_logprobs += logprobs.tolist()
        self.sequence.greedy_hits += hits.tolist()


def _ranked(sequence: Sequence, ids: list[int], values: list[float]) -> tuple[tuple[int, float], ...]:
    wanted = sequence.sampling.logprobs or 0
    return tuple(zip(ids[:wanted], values[:wanted], strict=True))
