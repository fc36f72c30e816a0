"""What a step drew, on its way from the device to the host."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

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
class Drawn:
    """One token for each of ``sequences``."""

    sequences: list[Sequence]
    copies: ToHost

    @classmethod
    def of(cls, sequences: list[Sequence], sampled: Sampled) -> Drawn:
        """Begin to copy what was drawn; rows behind the sequences are padding."""
        count = len(sequences)
        parts = (sampled.token_B, sampled.logprob_B, sampled.is_number_B, sampled.top_ids_BN, sampled.top_logprobs_BN)
        return cls(sequences=sequences, copies=ToHost([part[:count] for part in parts]))

    def tokens(self) -> list[tuple[Sequence, TokenLogprob | None]]:
        """Every sequence's token; None where its logits were not numbers."""
        token, logprob, is_number, ids, values = (part.tolist() for part in self.copies.wait())
        rows = zip(self.sequences, token, logprob, is_number, ids, values, strict=True)
        return [
            (s, TokenLogprob(token=t, logprob=p, top=_ranked(s, i, v) if i else ()) if good else None)
            for s, t, p, good, i, v in rows
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
