"""Attention of told text, whose shares are kept: a lesson's gradient differentiates them twice."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from hope_serve.training.parts.passes.pointwise import Kernels
from hope_serve.training.parts.passes.products import grouped, heads_of, merged
from hope_serve.training.parts.passes.sizes import Sizes


class Mix(torch.autograd.Function):
    """(mixed heads [N, T, H e], shares [N, H, T, S]) of queries, keys and values; earlier ones are constants."""

    @staticmethod
    def forward(ctx: Any, sizes: Sizes, kernels: Kernels, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """``tensors``: own queries, keys, values, all keys [N, K, S, e] and values, bias [N or 1, 1, T, S]."""
        query, _, _, keys, values, bias = tensors
        group, heads = sizes.num_key_heads, query.shape[1]
        scores = torch.bmm(grouped(query, group), grouped(keys, group).mT)
        shares = kernels.shares(scores.view(*query.shape[:2], -1, keys.shape[2]), bias, sizes.scale)
        mixed = torch.bmm(grouped(shares, group), grouped(values, group)).view(-1, heads, *query.shape[2:])
        ctx.save_for_backward(query, keys, values, shares)
        ctx.sizes, ctx.kernels = sizes, kernels
        ctx.set_materialize_grads(False)  # the first layer's shares have none
        return merged(mixed), shares

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, for_shares: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of own queries, keys and values."""
        query, keys, values, shares = ctx.saved_tensors
        group, scale, own = ctx.sizes.num_key_heads, ctx.sizes.scale, slice(keys.shape[2] - query.shape[2], None)
        mixed = grouped(heads_of(gradient, query.shape[-1]), group)
        below = torch.bmm(mixed, grouped(values, group).mT).view_as(shares)
        if for_shares is None:
            scores = grouped(ctx.kernels.shares_gradient(below, shares, scale), group)
        else:
            scores = grouped(ctx.kernels.shares_adjoint(below, for_shares, shares, scale), group)
        for_query = torch.bmm(scores, grouped(keys, group))
        for_key = torch.bmm(scores[..., own].mT, grouped(query, group))
        for_value = torch.bmm(grouped(shares, group)[..., own].mT, mixed)
        rows = keys[:, :, own].shape
        return None, None, for_query.view_as(query), for_key.view(rows), for_value.view(rows), None, None, None


class InnerMix(torch.autograd.Function):
    """The inner gradients of own queries, keys and values, given that of the mixed heads [N, T, H e]."""

    @staticmethod
    def forward(ctx: Any, sizes: Sizes, kernels: Kernels, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``tensors``: the gradient; own queries, keys and values; all keys and values; the shares."""
        gradient, query, key, value, keys, values, shares = tensors
        group, own = sizes.num_key_heads, slice(keys.shape[2] - query.shape[2], None)
        mixed = grouped(heads_of(gradient, query.shape[-1]), group)
        below = torch.bmm(mixed, grouped(values, group).mT).view_as(shares)
        scores = kernels.shares_gradient(below, shares, sizes.scale)
        pulled = grouped(scores, group)
        for_query = torch.bmm(pulled, grouped(keys, group)).view_as(query)
        for_key = torch.bmm(pulled[..., own].mT, grouped(query, group)).view_as(key)
        for_value = torch.bmm(grouped(shares, group)[..., own].mT, mixed).view_as(value)
        ctx.save_for_backward(query, keys, values, shares, mixed, below, scores)
        ctx.sizes, ctx.kernels = sizes, kernels
        return for_query, for_key, for_value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, query_: Tensor, key_: Tensor, value_: Tensor) -> tuple[Tensor | None, ...]:
        """Outer gradients of the gradient, of own queries, keys and values, and of the shares."""
        query, keys, values, shares, mixed, below, scores = ctx.saved_tensors
        group, own = ctx.sizes.num_key_heads, slice(keys.shape[2] - query.shape[2], None)
        before = keys.shape[2] - query.shape[2]
        key, value = (grouped(t, group) for t in (key_, value_))
        # both ways in which the scores' gradient counts, as one product of twice the depth
        both = grouped(torch.cat([query_, query], -1), group)
        depth = torch.cat([grouped(keys, group), F.pad(key, (0, 0, before, 0))], -1)
        above = torch.bmm(both, depth.mT).view_as(shares)
        other = torch.bmm(mixed, F.pad(value, (0, 0, before, 0)).mT).view_as(shares)
        for_below, for_shares = ctx.kernels.shares_second(above, other, below, shares, ctx.sizes.scale)
        lower, pulled = grouped(for_below, group), grouped(scores, group)[..., own]
        for_mixed = torch.bmm(lower, grouped(values, group)).baddbmm_(grouped(shares, group)[..., own], value)
        for_query = torch.bmm(pulled, key).view_as(query)
        for_key = torch.bmm(pulled.mT, grouped(query_, group)).view_as(key_)
        for_value = torch.bmm(lower[..., own].mT, mixed).view_as(value_)
        for_gradient = merged(for_mixed.view_as(query))
        return None, None, for_gradient, for_query, for_key, for_value, None, None, for_shares
