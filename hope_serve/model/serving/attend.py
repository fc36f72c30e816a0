"""Softmax attention of a batch by slot over its caches: one function an op, each on a kernel where there is a card.

Shapes: N rows, H heads, K key heads, e head size; S slots of T tokens. Source: arXiv 1706.03762, 2305.13245 (groups).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_serve.model.serving.batch import Batch
from hope_serve.model.serving.cache import CacheLayer, Places, Run


def attend(query: Tensor, key: Tensor, value: Tensor, cache: CacheLayer, batch: Batch, places: Places) -> Tensor:
    """Each row's mix of the values of its own sequence, up to itself; keys and values go into the cache.

    Differentiable by the rows; what was in the cache before is a constant.

    Args:
        query: [N, H, e], rotated. key, value: [N, K, e], the keys rotated.

    Returns:
        [N, H, e].
    """
    if torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value)):
        mixed = _attend_learning(query, key, value, cache, places.runs(batch.slots))
        write_cache(key.detach(), value.detach(), cache, places)
        return mixed
    write_cache(key, value, cache, places)
    if batch.starts is None:
        return attend_decode(query, cache, batch.slots, places)
    return attend_pieces(query, cache, batch.slots, places)


def write_cache(key: Tensor, value: Tensor, cache: CacheLayer, places: Places) -> None:
    """Put the rows' keys and values [N, K, e] where they stand."""
    at = (places.slots.long(), places.positions)
    cache.keys.index_put_(at, key.to(cache.keys.dtype))
    cache.values.index_put_(at, value.to(cache.values.dtype))


def attend_decode(query: Tensor, cache: CacheLayer, slots: Tensor, places: Places) -> Tensor:
    """One row a sequence, [B, H, e], over all that its slot holds; rows of slot 0 are zero."""
    mixed = torch.zeros_like(query)
    heads, groups = cache.keys.shape[2], query.shape[1] // cache.keys.shape[2]
    for slot, begin, _, before in places.runs(slots):
        if slot:
            rows = query[begin].view(heads, groups, -1) * query.shape[-1] ** -0.5
            keys, values = (pool[slot, : before + 1] for pool in cache)
            shares = torch.softmax(rows @ keys.permute(1, 2, 0), -1)
            mixed[begin] = (shares @ values.transpose(0, 1)).view_as(mixed[begin])
    return mixed


def attend_pieces(query: Tensor, cache: CacheLayer, slots: Tensor, places: Places) -> Tensor:
    """Runs of rows [N, H, e], each over its own sequence; rows of slot 0 are zero."""
    mixed = torch.zeros_like(query)
    for run in places.runs(slots):
        if run.slot:
            keys, values = (pool[run.slot, : run.before + run.end - run.begin] for pool in cache)
            mixed[run.begin : run.end] = _attend_one(query[run.begin : run.end], keys, values, run)
    return mixed


def _attend_learning(query: Tensor, key: Tensor, value: Tensor, cache: CacheLayer, runs: list[Run]) -> Tensor:
    parts = []
    for run in runs:
        rows = slice(run.begin, run.end)
        keys, values = (
            torch.cat([pool[run.slot, : run.before].to(own.dtype), own[rows]])
            for pool, own in zip(cache, (key, value), strict=True)
        )
        parts.append(_attend_one(query[rows], keys, values, run))
    return torch.cat(parts)


def _attend_one(query: Tensor, keys: Tensor, values: Tensor, run: Run) -> Tensor:
    """[n, H, e] of the last n of m tokens; keys, values: [m, K, e]."""
    groups = query.shape[1] // keys.shape[1]
    q, k, v = (t.transpose(0, 1)[None] for t in (query, keys.to(query.dtype), values.to(query.dtype)))
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    seen = None
    if run.before:
        ones = torch.ones(len(query), len(keys), dtype=torch.bool, device=query.device)
        seen = ones.tril(run.before)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=seen is None)[0].transpose(0, 1)
