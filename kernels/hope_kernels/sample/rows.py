# ruff: noqa: N815
"""What sampling reads of a pool's slots and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import Self

import torch
from torch import Tensor

from hope_kernels.arguments import require, require_dense_rows, require_shape

# Below it a draw is the argmax, by definition: 1 / temperature would turn rounding errors of the logits into odds.
LEAST_TEMPERATURE = 1e-5
# Weights relative to the likeliest token's are multiples of 2^-44 that add up exactly: 2^18 of them fit 63 bits.
WEIGHT_BITS = 44
MAX_VOCAB = 2**18
MAX_TOP = 20


@dataclass(frozen=True, kw_only=True)
class SamplingRows:
    """The rules of every slot, at addresses that never change. Slot 0 is nobody's.

    temperature: [S] fp32; 0, or less than ``LEAST_TEMPERATURE``, takes the likeliest token.
    top_p: [S] fp32, 1 for off. min_p: [S] fp32, 0 for off. top_k: [S] int32, 0 for off.
    repetition_penalty: [S] fp32, 1 for off, over prompt and output: positive logits are divided by it, others
    multiplied. presence_penalty, frequency_penalty: [S] fp32, 0 for off, over the output.
    seed: [S] int64, all 64 bits of the generator's key. position: [S] int64, the index of the token to be drawn;
    ``sample`` adds one. min_tokens: [S] int32; before this position ``stop_ids`` are forbidden.
    stop_ids: [S, K] int32, -1 for none. bias_ids: [S, M] int32, -1 for none; bias_values: [S, M] fp32, added.
    counts: [S, V] int16, how often each id was drawn (no further than 32767); ``sample`` counts.
    in_prompt: [S, V] uint8 or bool, whether the prompt has the id.
    """

    temperature: Tensor
    top_p: Tensor
    min_p: Tensor
    top_k: Tensor
    repetition_penalty: Tensor
    presence_penalty: Tensor
    frequency_penalty: Tensor
    seed: Tensor
    position: Tensor
    min_tokens: Tensor
    stop_ids: Tensor
    bias_ids: Tensor
    bias_values: Tensor
    counts: Tensor
    in_prompt: Tensor

    @classmethod
    def fresh(
        cls, num_slots: int, vocab_size: int, *, max_stops: int, max_biases: int, device: torch.device | str = "cpu"
    ) -> Self:
        """Slots that all take the likeliest token, without penalties, biases or stops."""
        zeros, full = partial(torch.zeros, device=device), partial(torch.full, device=device)
        return cls(
            temperature=zeros(num_slots),
            top_p=full((num_slots,), 1.0),
            min_p=zeros(num_slots),
            top_k=zeros(num_slots, dtype=torch.int32),
            repetition_penalty=full((num_slots,), 1.0),
            presence_penalty=zeros(num_slots),
            frequency_penalty=zeros(num_slots),
            seed=zeros(num_slots, dtype=torch.int64),
            position=zeros(num_slots, dtype=torch.int64),
            min_tokens=zeros(num_slots, dtype=torch.int32),
            stop_ids=full((num_slots, max_stops), -1, dtype=torch.int32),
            bias_ids=full((num_slots, max_biases), -1, dtype=torch.int32),
            bias_values=zeros(num_slots, max_biases),
            counts=zeros(num_slots, vocab_size, dtype=torch.int16),
            in_prompt=zeros(num_slots, vocab_size, dtype=torch.uint8),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name; the first axis of each is the slot."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """One token a row.

    token_B: [B] int64. logprob_B: [B] fp32, of the token among the logits as they were given. top_ids_BN: [B, N]
    int64 and top_logprobs_BN: [B, N] fp32, the likeliest of these, best first. is_number_B: [B] bool; False where a
    logit was NaN or +inf or none was left to draw: then token 0, log-probabilities NaN, and the slot is as it was.
    Padding rows hold zeros and True.
    """

    token_B: Tensor
    logprob_B: Tensor
    top_ids_BN: Tensor
    top_logprobs_BN: Tensor
    is_number_B: Tensor

    @classmethod
    def zeros(cls, count: int, num_top: int, device: torch.device) -> Self:
        """What padding rows hold."""
        zeros = partial(torch.zeros, device=device)
        return cls(
            token_B=zeros(count, dtype=torch.int64),
            logprob_B=zeros(count),
            top_ids_BN=zeros(count, num_top, dtype=torch.int64),
            top_logprobs_BN=zeros(count, num_top),
            is_number_B=torch.ones(count, dtype=torch.bool, device=device),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name; the first axis of each is the row."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


DTYPES = {
    "top_k": (torch.int32,),
    "seed": (torch.int64,),
    "position": (torch.int64,),
    "min_tokens": (torch.int32,),
    "stop_ids": (torch.int32,),
    "bias_ids": (torch.int32,),
    "counts": (torch.int16,),
    "in_prompt": (torch.uint8, torch.bool),
}


def require_sampling_rows(rows: SamplingRows, vocab_size: int, device: torch.device) -> None:
    """Raise ValueError unless the tensors of ``rows`` agree with each other and with logits [B, vocab_size]."""
    num_slots = len(rows.temperature)
    wide = {"stop_ids": rows.stop_ids.shape[-1], "bias_ids": rows.bias_ids.shape[-1]}
    wide |= {"bias_values": wide["bias_ids"], "counts": vocab_size, "in_prompt": vocab_size}
    for name, tensor in rows.tensors().items():
        shape = (num_slots, wide[name]) if name in wide else (num_slots,)
        require_shape(f"rows.{name}", tensor, shape, "[S, n]" if name in wide else "[S]")
        allowed = DTYPES.get(name, (torch.float32,))
        require(tensor.dtype in allowed, f"rows.{name}'s dtype", tensor.dtype, " or ".join(map(str, allowed)))
        require(tensor.device == device, f"rows.{name}'s device", tensor.device, f"the logits', {device}")
        if name in ("counts", "in_prompt"):
            require_dense_rows(f"rows.{name}", tensor)
        else:
            require(tensor.is_contiguous(), f"rows.{name}'s strides", tensor.stride(), "contiguous")
