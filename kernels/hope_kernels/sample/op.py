"""The public face of sampling: refuse what is wrong, then the kernels or the reference."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_kernels.arguments import require, require_slots
from hope_kernels.sample.reference import sample_reference
from hope_kernels.sample.rows import MAX_TOP, MAX_VOCAB, Sampled, SamplingRows, require_sampling_rows
from hope_kernels.spans import spanned

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@spanned("sampling")
def sample(logits_BV: Tensor, slots_B: Tensor, rows: SamplingRows, *, num_top: int = 0) -> Sampled:
    """One token for every row, by the rules of its slot; the slot's ``position`` and ``counts`` move on in place.

    Bias, penalties and forbidden stops shape the logits. At temperature 0, or below ``LEAST_TEMPERATURE``, the
    likeliest token is taken, the first of equals; else temperature, top-k, top-p and min-p choose who may be drawn,
    and ``uniform(seed, position)`` draws. A row's token depends on nothing but its logits and its slot.

    On a CUDA device it is a fixed sequence of launches that never waits for the host.

    Args:
        logits_BV: [B, V] fp32, bf16 or fp16, V up to 2^18; not changed.
        slots_B: [B] int32 or int64, all different; 0 for padding, which changes nothing.
        rows: the slots' rules.
        num_top: how many of the likeliest tokens to name, up to 20 and V.

    Returns:
        See ``Sampled``. On a CUDA device a row whose slot does not exist has ``is_number_B`` False.

    Raises:
        ValueError: an argument does not fit.
    """
    require(logits_BV.dim() == 2 and logits_BV.numel() > 0, "logits_BV's shape", tuple(logits_BV.shape), "[B, V]")
    require(logits_BV.dtype in DTYPES, "logits_BV's dtype", logits_BV.dtype, "float32, bfloat16 or float16")
    count, vocab_size = logits_BV.shape
    require(vocab_size <= MAX_VOCAB, "logits_BV's vocabulary", vocab_size, f"at most {MAX_VOCAB}")
    require(0 <= num_top <= min(MAX_TOP, vocab_size), "num_top", num_top, f"0 to {min(MAX_TOP, vocab_size)}")
    require_sampling_rows(rows, vocab_size, logits_BV.device)
    require_slots(slots_B, count, len(rows.temperature), logits_BV)
    if logits_BV.is_cuda:
        from hope_kernels.sample.launch import launch_sample

        return launch_sample(logits_BV, slots_B, rows, num_top)
    return sample_reference(logits_BV, slots_B, rows, num_top)
