"""From logits to tokens: penalties, filters, and a draw that depends on the sequence's own seed alone."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_serve.engine.draws import uniform_at
from hope_serve.engine.sequence import Sampled, Sequence

NEVER = float("-inf")
LARGEST = 1e300
"""Bound of a penalised logit: the smallest penalties allowed would lead past the numbers."""


def sample(logits: Tensor, sequences: list[Sequence]) -> list[Sampled]:
    """One token for each row.

    Args:
        logits: [B, V] float32; not changed.
        sequences: whose ``sampling``, tokens and ``draw_key`` decide, row by row.

    Raises:
        FloatingPointError: a row holds what is not a number.
    """
    best = logits.max(-1)  # a NaN is the largest of all
    if not torch.isfinite(best.values).all():
        raise FloatingPointError("the model's logits are not numbers")
    if all(_is_plain_greedy(sequence) for sequence in sequences):
        return [Sampled(token=token) for token in best.indices.tolist()]
    return [_sample_row(row, sequence) for row, sequence in zip(logits, sequences, strict=True)]


def _is_plain_greedy(sequence: Sequence) -> bool:
    sampling = sequence.sampling
    return (
        sampling.is_greedy
        and sampling.logprobs is None
        and not sampling.logit_bias
        and sampling.repetition_penalty == 1
        and sampling.presence_penalty == 0
        and sampling.frequency_penalty == 0
        and len(sequence.sampled) >= sampling.min_tokens
    )


def _sample_row(logits: Tensor, sequence: Sequence) -> Sampled:
    shaped = _forbid_early_stops(_penalize(logits.double(), sequence), sequence)
    sampling = sequence.sampling
    token = int(shaped.argmax()) if sampling.is_greedy else _draw(shaped, sequence)
    if sampling.logprobs is None:
        return Sampled(token=token)
    logprobs = torch.log_softmax(logits, -1)
    top = torch.topk(logprobs, sampling.logprobs)
    ranked = tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True))
    return Sampled(token=token, logprob=float(logprobs[token]), top=ranked)


def _penalize(logits: Tensor, sequence: Sequence) -> Tensor:
    """Biases; then the repetition penalty over prompt and output, presence and frequency over the output.

    ``logits`` are a copy in double precision, in which the smallest of these numbers are still above 0.
    """
    sampling = sequence.sampling
    if sampling.logit_bias:
        tokens, biases = zip(*sampling.logit_bias, strict=True)
        logits.index_add_(0, _on(logits, tokens), torch.tensor(biases, dtype=logits.dtype, device=logits.device))
    if sampling.repetition_penalty != 1:
        seen = _on(logits, tuple(set(sequence.tokens)))
        values = logits[seen]
        factor = sampling.repetition_penalty
        logits[seen] = torch.where(values > 0, values / factor, values * factor).clamp(-LARGEST, LARGEST)
    if (sampling.presence_penalty or sampling.frequency_penalty) and sequence.sampled:
        unique, counts = torch.unique(_on(logits, [s.token for s in sequence.sampled]), return_counts=True)
        logits[unique] -= sampling.presence_penalty + sampling.frequency_penalty * counts
    return logits


def _on(logits: Tensor, tokens: tuple[int, ...] | list[int]) -> Tensor:
    return torch.tensor(tokens, device=logits.device)


def _forbid_early_stops(logits: Tensor, sequence: Sequence) -> Tensor:
    if len(sequence.sampled) < sequence.sampling.min_tokens and sequence.stop_ids:
        logits[list(sequence.stop_ids)] = NEVER
    return logits


def _draw(logits: Tensor, sequence: Sequence) -> int:
    """Temperature, then top-k, top-p and min-p on the ranked tokens, then one number from the sequence's key.

    The best token stays, whatever the filters say: nothing is before it, and no share of its own probability is more.
    """
    sampling = sequence.sampling
    ranked, order = torch.sort(logits, descending=True, stable=True)
    probabilities = torch.softmax((ranked - ranked[0]) / sampling.temperature, -1)
    keep = torch.ones_like(probabilities, dtype=torch.bool)
    if sampling.top_k:
        keep[sampling.top_k :] = False
    if sampling.top_p < 1:
        # A token stays while those before it have not yet reached the mass.
        keep &= probabilities.cumsum(-1) - probabilities < sampling.top_p
    if sampling.min_p:
        keep &= probabilities >= sampling.min_p * probabilities[0]
    mass = torch.where(keep, probabilities, 0.0).cumsum(-1)
    point = uniform_at(sequence.draw_key, len(sequence.sampled)) * float(mass[-1])
    index = int(torch.searchsorted(mass, point, right=True))
    return int(order[min(index, int(keep.nonzero()[-1]))])
