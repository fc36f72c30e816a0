"""From logits to tokens: penalties, filters, and a draw that depends on the sequence's own seed alone."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_serve.engine.sequence import Sampled, Sequence

NEVER = float("-inf")


def sample(logits: Tensor, sequences: list[Sequence]) -> list[Sampled]:
    """One token for each row.

    Args:
        logits: [B, V] float32; not changed.
        sequences: whose ``sampling``, tokens and generator decide, row by row.
    """
    if all(_is_plain_greedy(sequence) for sequence in sequences):
        return [Sampled(token=token) for token in logits.argmax(-1).tolist()]
    return [_sample_row(row, sequence) for row, sequence in zip(logits, sequences, strict=True)]


def _is_plain_greedy(sequence: Sequence) -> bool:
    sampling = sequence.sampling
    return (
        sampling.temperature == 0
        and sampling.logprobs is None
        and not sampling.logit_bias
        and sampling.repetition_penalty == 1
        and sampling.presence_penalty == 0
        and sampling.frequency_penalty == 0
        and len(sequence.sampled) >= sampling.min_tokens
    )


def _sample_row(logits: Tensor, sequence: Sequence) -> Sampled:
    shaped = _forbid_early_stops(_penalize(logits.clone(), sequence), sequence)
    sampling = sequence.sampling
    token = int(shaped.argmax()) if sampling.temperature == 0 else _draw(shaped, sequence)
    if sampling.logprobs is None:
        return Sampled(token=token)
    logprobs = torch.log_softmax(logits, -1)
    top = torch.topk(logprobs, sampling.logprobs)
    ranked = tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True))
    return Sampled(token=token, logprob=float(logprobs[token]), top=ranked)


def _penalize(logits: Tensor, sequence: Sequence) -> Tensor:
    """Biases; then the repetition penalty over prompt and output, presence and frequency over the output."""
    sampling = sequence.sampling
    for token, bias in sampling.logit_bias:
        logits[token] += bias
    if sampling.repetition_penalty != 1:
        seen = torch.tensor(sorted(set(sequence.tokens)), device=logits.device)
        values = logits[seen]
        factor = sampling.repetition_penalty
        logits[seen] = torch.where(values > 0, values / factor, values * factor)
    if (sampling.presence_penalty or sampling.frequency_penalty) and sequence.sampled:
        tokens = torch.tensor([s.token for s in sequence.sampled], device=logits.device)
        unique, counts = torch.unique(tokens, return_counts=True)
        logits[unique] -= sampling.presence_penalty + sampling.frequency_penalty * counts
    return logits


def _forbid_early_stops(logits: Tensor, sequence: Sequence) -> Tensor:
    if len(sequence.sampled) < sequence.sampling.min_tokens and sequence.stop_ids:
        logits[list(sequence.stop_ids)] = NEVER
    return logits


def _draw(logits: Tensor, sequence: Sequence) -> int:
    """Temperature, then top-k, top-p and min-p on the ranked tokens, then one number from the sequence's seed."""
    sampling = sequence.sampling
    ranked, order = torch.sort(logits / sampling.temperature, descending=True, stable=True)
    probabilities = torch.softmax(ranked, -1)
    keep = torch.ones_like(probabilities, dtype=torch.bool)
    if sampling.top_k:
        keep[sampling.top_k :] = False
    if sampling.top_p < 1:
        # A token stays while those before it have not yet reached the mass.
        keep &= probabilities.cumsum(-1) - probabilities < sampling.top_p
    if sampling.min_p:
        keep &= probabilities >= sampling.min_p * probabilities[0]
    mass = torch.where(keep, probabilities, 0.0).double().cumsum(-1)
    point = torch.rand((), generator=sequence.generator, dtype=torch.float64).item() * float(mass[-1])
    index = int(torch.searchsorted(mass, point, right=True))
    return int(order[min(index, int(keep.nonzero()[-1]))])
