"""Attention of one token a sequence in plain torch, each sequence by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_kernels.pool import working_dtype


def attention_decode_reference(
    query: Tensor, keys: Tensor, values: Tensor, slots: Tensor, lengths: Tensor, scale: float
) -> Tensor:
    """Arguments as ``attention_decode``; differentiable in query, keys and values."""
    wide = working_dtype(query)
    out = []
    for q, slot, length in zip(query, slots.tolist(), lengths.tolist(), strict=True):
        if not slot or not length:
            out.append(torch.zeros_like(q))
            continue
        key, value = (pool[slot, :length].to(wide).transpose(0, 1) for pool in (keys, values))
        grouped = q.to(wide).view(key.shape[0], -1, key.shape[2])
        shares = torch.softmax(grouped @ key.mT * scale, -1)
        out.append((shares @ value).view_as(q).to(q.dtype))
    return torch.stack(out)
