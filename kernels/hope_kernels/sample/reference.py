"""Sampling in plain torch, row by row: what the kernels have to agree with."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_kernels.sample.rows import LEAST_TEMPERATURE, WEIGHT_BITS, Sampled, SamplingRows
from hope_kernels.sample.uniform import uniform

NEVER = float("-inf")
LARGEST = torch.finfo(torch.float32).max
SMALLEST = torch.finfo(torch.float32).tiny
MOST_COUNTED = torch.iinfo(torch.int16).max
LEAST_IN_FP32 = float(torch.tensor(LEAST_TEMPERATURE, dtype=torch.float32))
"""As a tensor's comparison has it."""


def sample_reference(logits_BV: Tensor, slots_B: Tensor, rows: SamplingRows, num_top: int) -> Sampled:
    """Arguments as ``sample``; looks at the slots on the host."""
    slots = slots_B.tolist()
    plain = _are_plain(slots_B, slots, rows)
    chosen = [row for row, slot in enumerate(slots) if slot and plain[row]]
    if len(chosen) == len(slots):
        return _take_likeliest(logits_BV, slots_B, rows, num_top)
    out = Sampled.zeros(len(logits_BV), num_top, logits_BV.device)
    if chosen:
        taken = _take_likeliest(logits_BV[chosen], slots_B[chosen], rows, num_top).tensors()
        for name, tensor in out.tensors().items():
            tensor[chosen] = taken[name]
    for row, slot in enumerate(slots):
        if slot and not plain[row]:
            _sample_row(out, row, logits_BV[row].float(), rows, slot)
    return out


def _are_plain(slots_B: Tensor, slots: list[int], rows: SamplingRows) -> list[bool]:
    """[B], whether nothing shapes a slot's logits and the likeliest token is taken.

    Numbers are compared on the host, where they are: for a few of them that is quicker than torch's operations.
    """
    biased: list[bool] = (rows.bias_ids[slots_B] >= 0).any(1).tolist()
    temperature, repetition = rows.temperature.tolist(), rows.repetition_penalty.tolist()
    presence, frequency = rows.presence_penalty.tolist(), rows.frequency_penalty.tolist()
    position, least = rows.position.tolist(), rows.min_tokens.tolist()
    return [
        temperature[slot] < LEAST_IN_FP32
        and repetition[slot] == 1
        and presence[slot] == frequency[slot] == 0
        and position[slot] >= least[slot]
        and not shaped
        for slot, shaped in zip(slots, biased, strict=True)
    ]


def _take_likeliest(logits_BV: Tensor, slots_B: Tensor, rows: SamplingRows, num_top: int) -> Sampled:
    """``_sample_row`` of rows that are plain, all at once: the same numbers."""
    logits = logits_BV.float()
    best, token = logits.max(-1)
    # NaN is not less than infinity, and a maximum with NaN among its numbers is NaN.
    good = best.abs() < torch.inf
    logprobs = torch.log_softmax(logits, -1)
    ids, values = token.new_empty(len(token), 0), best.new_empty(len(token), 0)
    if num_top:
        ranked = logprobs.sort(descending=True, stable=True)
        ids, values = ranked.indices[:, :num_top], ranked.values[:, :num_top]
    logprob = logprobs.gather(1, token[:, None])[:, 0]
    if not all(good.tolist()):
        bad = ~good
        token, logprob = token.masked_fill(bad, 0), logprob.masked_fill(bad, torch.nan)
        ids, values = ids.masked_fill(bad[:, None], 0), values.masked_fill(bad[:, None], torch.nan)
    rows.position.index_put_((slots_B,), good.long(), accumulate=True)
    counts = good & (rows.counts[slots_B, token] < MOST_COUNTED)
    rows.counts.index_put_((slots_B, token), counts.to(rows.counts.dtype), accumulate=True)
    return Sampled(token_B=token, logprob_B=logprob, top_ids_BN=ids, top_logprobs_BN=values, is_number_B=good)


def _sample_row(out: Sampled, row: int, logits: Tensor, rows: SamplingRows, slot: int) -> None:
    """logits: [V] fp32."""
    shaped = shape(logits, rows, slot)
    # NaN is not less than infinity.
    if not ((logits < torch.inf).all() and (shaped < torch.inf).all() and (shaped > NEVER).any()):
        out.is_number_B[row] = False
        out.logprob_B[row] = torch.nan
        out.top_logprobs_BN[row] = torch.nan
        return
    token = draw(shaped, rows, slot)
    logprobs = torch.log_softmax(logits, -1)
    out.token_B[row] = token
    out.logprob_B[row] = logprobs[token]
    if num_top := out.top_ids_BN.shape[1]:
        best = logprobs.sort(descending=True, stable=True)
        out.top_ids_BN[row], out.top_logprobs_BN[row] = best.indices[:num_top], best.values[:num_top]
    rows.position[slot] += 1
    rows.counts[slot, token] = min(int(rows.counts[slot, token]) + 1, MOST_COUNTED)


def shape(logits: Tensor, rows: SamplingRows, slot: int) -> Tensor:
    """[V] fp32: biases added, then the penalties, then stops forbidden that come too early.

    A penalty leaves a finite logit finite, however extreme it is.
    """
    shaped = logits.clone()
    biased = rows.bias_ids[slot] >= 0
    shaped.index_add_(0, rows.bias_ids[slot][biased].long(), rows.bias_values[slot][biased])
    shaped = _penalize(shaped.clamp(max=LARGEST), rows, slot)
    if rows.position[slot] < rows.min_tokens[slot]:
        stops = rows.stop_ids[slot]
        shaped[stops[stops >= 0].long()] = NEVER
    return shaped


def _penalize(logits: Tensor, rows: SamplingRows, slot: int) -> Tensor:
    """Repetition over prompt and output, then presence and frequency over the output."""
    repetition = rows.repetition_penalty[slot].clamp(SMALLEST, LARGEST)
    presence, frequency = (p[slot].clamp(-LARGEST, LARGEST) for p in (rows.presence_penalty, rows.frequency_penalty))
    counts = rows.counts[slot].float()
    seen = (counts > 0) | (rows.in_prompt[slot] != 0)
    repeated = torch.where(logits > 0, logits / repetition, logits * repetition).clamp(-LARGEST, LARGEST)
    shaped = torch.where(seen, repeated, logits)
    charge = (frequency * counts).clamp(-LARGEST, LARGEST) + presence
    charged = (shaped - charge).clamp(-LARGEST, LARGEST)
    return torch.where(logits > NEVER, torch.where(counts > 0, charged, shaped), logits)


def draw(shaped: Tensor, rows: SamplingRows, slot: int) -> int:
    """The likeliest token, the first of equals; or one by lot: by weights that add up in integers, in order of id."""
    if not rows.temperature[slot] >= LEAST_TEMPERATURE:
        return int(shaped.argmax())
    share = keep(shaped, rows, slot).cumsum(0)
    number = uniform(rows.seed[slot], rows.position[slot])
    point = (number * share[-1].double()).long().clamp(max=share[-1] - 1)
    return int(torch.searchsorted(share, point, right=True))


def keep(shaped: Tensor, rows: SamplingRows, slot: int) -> Tensor:
    """[V] int64: each token's weight in units of 2^-44 of the likeliest's, 0 for those that were filtered out.

    Tokens are ranked by logit, equals by id. top-k keeps the first k; top-p those before which less than its share of
    the whole mass lies; min-p those whose weight is at least that of the first times it. The first always stays.
    """
    ranked, ids = shaped.sort(descending=True, stable=True)
    weights = torch.exp((ranked - ranked[0]).clamp(min=-LARGEST) * (1 / rows.temperature[slot]))
    weights = torch.where(ranked > NEVER, weights, 0.0)
    units = (weights.double() * 2.0**WEIGHT_BITS).long()
    kept = weights >= rows.min_p[slot]
    if top_k := int(rows.top_k[slot]):
        kept[top_k:] = False
    if rows.top_p[slot] < 1:
        kept &= units.cumsum(0) - units < rows.top_p[slot].double() * units.sum()
    kept[0] = True
    return torch.zeros_like(units).index_copy_(0, ids, torch.where(kept, units, 0))
