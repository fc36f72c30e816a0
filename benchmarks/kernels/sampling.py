"""Figure 8: sample, against the CPU's tokens, and against the bytes of the logits."""

from __future__ import annotations

import torch
from hope_kernels.sample import SamplingRows, sample
from hope_kernels.sample.reference import sample_reference
from torch import Tensor

from benchmarks.kernels.bench import Bench
from benchmarks.kernels.cms_data import BF16, F32, shuffled
from benchmarks.kernels.table import Row, at_least, at_most

RULES = {  # what a batch's rows ask for
    "greedy": {},
    "temperature": {"temperature": 0.8},
    "top-k 50": {"temperature": 0.8, "top_k": 50},
    "top-p .9": {"temperature": 0.8, "top_p": 0.9},
    "everything": {
        "temperature": 0.8,
        "top_k": 500,
        "top_p": 0.9,
        "min_p": 0.01,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.1,
        "min_tokens": 2**30,
    },
}
TARGETS = {1: 30e-6, 256: 200e-6}  # seconds, by rows, at 32,000 tokens
EQUAL_TOKENS = 0.995  # the share that a CPU and a GPU must draw alike; the rest lies on a border


def sampling_rows(count: int, vocab_size: int, rules: dict[str, float]) -> SamplingRows:
    """Slots that follow ``rules``, with prompts, stops and biases at random, on the default device."""
    rows = SamplingRows.fresh(count + 1, vocab_size, max_stops=8, max_biases=64, device=torch.get_default_device())
    for name, value in rules.items():
        getattr(rows, name).fill_(value)
    rows.seed.random_()
    rows.in_prompt.copy_(torch.rand(rows.in_prompt.shape) < 0.05)
    rows.stop_ids[:, :2] = torch.randint(0, vocab_size, (count + 1, 2))
    if len(rules) > 3:
        rows.bias_ids[:, :3] = torch.randint(0, vocab_size, (count + 1, 3))
        rows.bias_values.normal_()
    return rows


def vocabularies(bench: Bench) -> tuple[int, ...]:
    """Those that are timed; the first has the targets."""
    return (32000, 160000) if bench.measures else (200,)


def check_sample(bench: Bench) -> list[Row]:
    """Tokens against the reference on a CPU, for every kind of rule, over several steps of one pool."""
    rows, count = [], 32 if bench.measures else 3
    for vocab_size in vocabularies(bench):
        for dtype in (F32, BF16):
            equal = [drawn_alike(count, vocab_size, dtype, rules) for rules in RULES.values()]
            share = torch.cat(equal).float().mean().item()
            case = f"sample V={vocab_size} {dtype}, tokens as a CPU draws them"
            rows.append(Row("check", case, None, "", share, "equal", f">= {EQUAL_TOKENS}", share >= EQUAL_TOKENS))
    return rows


def drawn_alike(count: int, vocab_size: int, dtype: torch.dtype, rules: dict[str, float]) -> Tensor:
    """Whether each row's tokens, two steps of them, are the reference's."""
    ours = sampling_rows(count, vocab_size, rules)
    theirs = SamplingRows(**{name: tensor.to("cpu", copy=True) for name, tensor in ours.tensors().items()})
    slots, equal = shuffled(count), []
    for _ in range(2):
        logits = (torch.randn(count, vocab_size) * 3).to(dtype)
        given = sample(logits, slots, ours).token_B.cpu()
        expected = sample_reference(logits.cpu(), slots.cpu(), theirs, 0).token_B
        equal.append(given == expected)
        # From here on both have drawn the same.
        for name in ("position", "counts"):
            getattr(theirs, name).copy_(getattr(ours, name))
    return torch.cat(equal)


def time_sample(bench: Bench) -> list[Row]:
    """A batch of one kind of row; logits in cache, as the product before has left them."""
    rows = []
    for vocab_size in vocabularies(bench):
        for count in sorted({1, 64, bench.sizes.users}) if bench.measures else [3]:
            logits, slots = torch.randn(count, vocab_size) * 3, shuffled(count)
            for kind, rules in RULES.items():
                pool = sampling_rows(count, vocab_size, rules)
                seconds = bench.replay(lambda a=(logits, slots, pool): sample(*a))
                case = f"sample B={count} V={vocab_size} {kind}"
                rows.append(judged(bench, case, seconds, logits, vocab_size))
            seconds = bench.replay(lambda a=(logits, slots, pool): sample(*a, num_top=20))
            rows.append(judged(bench, f"{case}, 20 log-probabilities", seconds, logits, 0))
    return rows


def judged(bench: Bench, case: str, seconds: float, logits: Tensor, vocab_size: int) -> Row:
    """A row with its target, where there is one."""
    floor = 4 * logits.numel() / bench.read
    rate = f"{seconds / floor:.1f} x the logits' bytes"
    target = TARGETS.get(len(logits)) if vocab_size == 32000 else None
    if target is None:
        return at_least("8", case, seconds, rate, floor / seconds, "of read", None)
    return at_most("8", case, seconds, rate, seconds / target, f"of {target * 1e6:.0f} us", 1.0)
