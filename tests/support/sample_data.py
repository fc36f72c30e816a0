"""Slots with rules of every kind, and what sampling is by its definition, in fp64."""

from __future__ import annotations

import torch
from hope_kernels.sample import SamplingRows, uniform

RULES = (  # one slot each, from slot 1 on
    {},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 5},
    {"temperature": 1.3, "top_p": 0.8},
    {"temperature": 1.0, "min_p": 0.05},
    {"temperature": 0.9, "top_k": 40, "top_p": 0.6, "min_p": 0.02},
    {"temperature": 1.0, "top_k": 3, "repetition_penalty": 1.5},
    {"temperature": 1.0, "presence_penalty": 0.5, "frequency_penalty": 0.25},
    {"repetition_penalty": 1.7, "frequency_penalty": -0.5},
    {"temperature": 1.0, "top_k": 1},
    {"temperature": 100.0, "top_p": 0.3},
    {"temperature": 0.8, "top_k": 10**9, "top_p": 0.999},
    {"temperature": 1.0, "min_tokens": 50},
)
SLOTS = len(RULES) + 3


def sampling_rows(vocab_size, *, max_stops=3, max_biases=4, device="cpu"):
    """Slots by ``RULES`` with seeds, counts, prompts, stops and biases at random; the null slot holds nonsense."""
    rows = SamplingRows.fresh(SLOTS, vocab_size, max_stops=max_stops, max_biases=max_biases)
    for slot, rules in enumerate(RULES, 1):
        for name, value in rules.items():
            getattr(rows, name)[slot] = value
    rows.seed.copy_(torch.randint(-(2**63), 2**63 - 1, (SLOTS,)))
    rows.position.copy_(torch.randint(0, 60, (SLOTS,)))
    rows.counts.copy_(torch.randint(-12, 4, (SLOTS, vocab_size)).clamp(min=0))
    rows.in_prompt.copy_(torch.rand(SLOTS, vocab_size) < 0.3)
    rows.stop_ids.copy_(torch.randint(-1, vocab_size, rows.stop_ids.shape))
    rows.bias_ids.copy_(torch.randint(-1, vocab_size, rows.bias_ids.shape))
    rows.bias_values.copy_(torch.randn(rows.bias_values.shape))
    rows.temperature[0] = torch.nan
    return moved(rows, device)


def moved(rows, device):
    """A copy on ``device``."""
    return SamplingRows(**{name: tensor.clone().to(device) for name, tensor in rows.tensors().items()})


def shaped(logits, rows, slot):
    """Logits [V] after bias, penalties and early stops, fp64."""
    z = logits.double().clone()
    for token, value in zip(rows.bias_ids[slot].tolist(), rows.bias_values[slot].tolist(), strict=True):
        z[token] += value if token >= 0 else 0.0
    drawn, given = rows.counts[slot].double(), rows.in_prompt[slot] != 0
    repetition = rows.repetition_penalty[slot].double()
    z = torch.where((drawn > 0) | given, torch.where(z > 0, z / repetition, z * repetition), z)
    z -= torch.where(drawn > 0, rows.presence_penalty[slot] + rows.frequency_penalty[slot].double() * drawn, 0.0)
    if rows.position[slot] < rows.min_tokens[slot]:
        stops = rows.stop_ids[slot]
        z[stops[stops >= 0].long()] = -torch.inf
    return z


def allowed(logits, rows, slot, slack=3e-6):
    """The tokens that a draw may give: one, or those whose borders the number falls within ``slack`` of.

    Where top-p's border is that near, both ways of cutting count.
    """
    z = shaped(logits, rows, slot)
    temperature = rows.temperature[slot].double()
    if temperature < 1e-5:
        return {int(z.argmax())}
    ranked, ids = z.sort(descending=True, stable=True)
    p = torch.softmax(ranked / temperature, 0)
    before, tokens = p.cumsum(0) - p, set()
    number = uniform(rows.seed[slot], rows.position[slot]).item()
    for share in (rows.top_p[slot] - slack, rows.top_p[slot] + slack):
        kept = (before < share) | (rows.top_p[slot] == 1)
        kept &= p >= rows.min_p[slot] * p[0]
        if rows.top_k[slot]:
            kept &= torch.arange(len(p)) < rows.top_k[slot]
        kept[0] = True
        weight = torch.zeros_like(p).index_copy_(0, ids, torch.where(kept, p, 0.0))
        reached = weight.cumsum(0) / weight.sum()
        first, last = (
            int(torch.searchsorted(reached, max(point, 0.0), right=True).clamp(max=len(p) - 1))
            for point in (number - slack, number + slack)
        )
        tokens |= {first, last} | {token for token in range(first, last) if weight[token] > 0}
    return tokens
