"""Softmax attention of a batch by slot over its caches, on a card by kernels, on a CPU by torch's products.

Shapes: N rows, B sequences, H heads, K key heads, e head size; S slots of T tokens.
Source: arXiv 1706.03762; 2305.13245 (heads in groups); 2104.09864 (rotations).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hope_kernels.attention_decode.op import attention_decode
from hope_kernels.attention_prefill.op import attention_prefill
from hope_kernels.cache_write.op import cache_write
from torch import Tensor

from hope_serve.model.attention_ops import rotate
from hope_serve.model.serving.cache import CacheLayer, Places, Run


def attend_on_kernels(rows: Tensor, bias: Tensor | None, cache: CacheLayer, places: Places) -> Tensor:
    """``attend`` in two launches, which a graph may capture."""
    batch, tables = places.batch, places.tables
    query = cache_write(rows, places.positions, places.slots, *tables, *cache, bias=bias)
    scale = query.shape[-1] ** -0.5
    if batch.starts is None:
        return attention_decode(query, *cache, batch.slots, places.after, scale)
    return attention_prefill(query, *cache, batch.slots, batch.starts, places.before, scale)


def attend(rows: Tensor, bias: Tensor | None, cache: CacheLayer, places: Places) -> Tensor:
    """Each row's mix of the values of its own sequence, up to itself; keys and values go into the cache.

    Differentiable by the rows; what was in the cache before is a constant.

    Args:
        rows: [N, (H + 2 K) e], queries, keys and values of each row side by side, not rotated.
        bias: [(H + 2 K) e], added first.

    Returns:
        [N, H, e]; zeros for rows of slot 0.
    """
    heads, size = cache.keys.shape[2:]
    split = (rows if bias is None else rows + bias).view(len(rows), -1, size)
    turned = rotate(split[:, :-heads].to(places.tables[0].dtype), *places.rotations).to(rows.dtype)
    query, key, value = turned[:, :-heads], turned[:, -heads:], split[:, -heads:]
    if torch.is_grad_enabled() and rows.requires_grad:
        mixed = _learning(query, key, value, cache, places.runs)
        _write(key.detach(), value.detach(), cache, places)
        return mixed
    _write(key, value, cache, places)
    return _next_tokens(query, cache, places) if places.batch.starts is None else _pieces(query, cache, places)


def _write(key: Tensor, value: Tensor, cache: CacheLayer, places: Places) -> None:
    at = (places.slots.long(), places.positions.long())
    cache.keys.index_put_(at, key)
    cache.values.index_put_(at, value)


def _next_tokens(query: Tensor, cache: CacheLayer, places: Places) -> Tensor:
    """One row a sequence, over all that its slot holds."""
    mixed = torch.zeros_like(query)
    heads, scale = cache.keys.shape[2], query.shape[-1] ** -0.5
    for slot, begin, _, before in places.runs:
        if slot:
            rows = query[begin].view(heads, -1, query.shape[-1]) * scale
            keys, values = (pool[slot, : before + 1] for pool in cache)
            shares = torch.softmax(rows @ keys.permute(1, 2, 0), -1)
            mixed[begin] = (shares @ values.transpose(0, 1)).view_as(mixed[begin])
    return mixed


def _pieces(query: Tensor, cache: CacheLayer, places: Places) -> Tensor:
    """Runs of rows, each over its own sequence."""
    mixed = torch.zeros_like(query)
    for run in places.runs:
        if run.slot:
            keys, values = (pool[run.slot, : run.before + run.end - run.begin] for pool in cache)
            mixed[run.begin : run.end] = _one(query[run.begin : run.end], keys, values, run)
    return mixed


def _learning(query: Tensor, key: Tensor, value: Tensor, cache: CacheLayer, runs: list[Run]) -> Tensor:
    parts = []
    for run in runs:
        rows = slice(run.begin, run.end)
        keys, values = (
            torch.cat([pool[run.slot, : run.before], own[rows]]) for pool, own in zip(cache, (key, value), strict=True)
        )
        parts.append(_one(query[rows], keys, values, run))
    return torch.cat(parts)


def _one(query: Tensor, keys: Tensor, values: Tensor, run: Run) -> Tensor:
    """[n, H, e] of the last n of m tokens; keys, values: [m, K, e]."""
    groups = query.shape[1] // keys.shape[1]
    q, k, v = (t.transpose(0, 1)[None] for t in (query, keys, values))
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    seen = None
    if run.before:
        seen = torch.ones(len(query), len(keys), dtype=torch.bool, device=query.device).tril(run.before)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=seen is None)[0].transpose(0, 1)
