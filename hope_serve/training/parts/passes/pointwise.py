"""The element-wise work of a training pass, one function a kernel: what lies between two matrix products.

None of these is differentiated; where ``f`` is a forward function, ``f_adjoint`` takes the gradient of its result to
that of its arguments. A gradient's own adjoint is a second derivative. Sums are taken in at least 32 bits.

Shapes: N rows, T tokens, S keys, H heads, K key heads, e head size, d hidden, F wide, V vocabulary, n tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from hope_serve.model.attention_ops import attention_shares, precise, rotate, swiglu, swiglu_gradient


class Kernels(NamedTuple):
    """One callable a kernel; ``compiled`` of ``setup`` puts fused ones in their place."""

    norm: Callable[..., Tensor]
    added_norm: Callable[..., tuple[Tensor, Tensor]]
    norm_adjoint: Callable[..., Tensor]
    norm_second: Callable[..., tuple[Tensor, Tensor]]
    added_norm_second: Callable[..., tuple[Tensor, Tensor, Tensor]]
    swiglu: Callable[..., Tensor]
    swiglu_gradient: Callable[..., Tensor]
    swiglu_adjoint: Callable[..., Tensor]
    swiglu_second: Callable[..., tuple[Tensor, Tensor]]
    split_heads: Callable[..., tuple[Tensor, Tensor, Tensor]]
    merge_heads: Callable[..., Tensor]
    shares: Callable[..., Tensor]
    shares_gradient: Callable[..., Tensor]
    shares_adjoint: Callable[..., Tensor]
    shares_second: Callable[..., tuple[Tensor, Tensor]]
    errors: Callable[..., Tensor]
    errors_adjoint: Callable[..., Tensor]
    surprise: Callable[..., tuple[Tensor, Tensor]]
    departure: Callable[..., tuple[Tensor, Tensor]]


def norm(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    """x / rms(x), scaled."""
    wide = x.to(precise(x.dtype))
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * scale).to(x.dtype)


def added_norm(x: Tensor, y: Tensor, scale: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + y, and that normed."""
    both = x + y
    return both, norm(both, scale, eps)


def norm_adjoint(gradient: Tensor, x: Tensor, scale: Tensor, eps: float, *others: Tensor) -> Tensor:
    """The gradient of ``x``: through ``norm(x)``, and whatever else reaches it."""
    wide = x.to(precise(x.dtype))
    scaled = gradient.to(wide.dtype) * scale
    inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    total = (scaled - wide * ((scaled * wide).mean(-1, keepdim=True) * inverse.square())) * inverse
    for other in others:
        total = total + other
    return total.to(x.dtype)


def norm_second(outer: Tensor, gradient: Tensor, x: Tensor, scale: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Of ``norm_adjoint(gradient, x)``, whose gradient is ``outer``: the gradients of ``gradient`` and of ``x``."""
    wide, above = x.to(precise(x.dtype)), outer.to(precise(x.dtype))
    scaled = gradient.to(wide.dtype) * scale
    inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    cubed = inverse * inverse.square()
    outer_gradient, gradient_x = (above * scaled).mean(-1, keepdim=True), (scaled * wide).mean(-1, keepdim=True)
    outer_x = (above * wide).mean(-1, keepdim=True)
    for_gradient = (above - wide * (outer_x * inverse.square())) * inverse * scale
    along = 3 * inverse.square() * gradient_x * outer_x - outer_gradient
    for_x = cubed * (wide * along - scaled * outer_x - above * gradient_x)
    return for_gradient.to(x.dtype), for_x.to(x.dtype)


def added_norm_second(
    outer: Tensor, more: Tensor, gradient: Tensor, x: Tensor, scale: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """``outer + more``, and ``norm_second`` of it."""
    both = outer + more
    return both, *norm_second(both, gradient, x, scale, eps)


def swiglu_adjoint(gradient: Tensor, gate_up: Tensor, other: Tensor) -> Tensor:
    """The gradient of gate and up: through ``swiglu``, and ``other``."""
    return swiglu_gradient(gradient, gate_up) + other


def swiglu_second(outer: Tensor, gradient: Tensor, gate_up: Tensor) -> tuple[Tensor, Tensor]:
    """Of ``swiglu_gradient(gradient, gate_up)``: the gradients of ``gradient`` and of ``gate_up``."""
    dtype = precise(gradient.dtype)
    gate, up = (t.to(dtype) for t in gate_up.chunk(2, -1))
    for_gate, for_up = (t.to(dtype) for t in outer.chunk(2, -1))
    wide, share = gradient.to(dtype), torch.sigmoid(gate)
    active = gate * share
    slope = share + active * (1 - share)
    bend = share * (1 - share) * (2 + gate * (1 - 2 * share))
    for_gradient = for_gate * up * slope + for_up * active
    second = torch.cat([wide * (for_gate * up * bend + for_up * slope), wide * for_gate * slope], -1)
    return for_gradient.to(gradient.dtype), second.to(gradient.dtype)


def split_heads(x: Tensor, cos: Tensor, sin: Tensor, num_key_heads: int, copied: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated queries [N, H, T, e] and keys, and values, of [N, T, (H + 2 K) e] side by side.

    Keys and values are [N, K, T, e], or ``copied`` [N, H, T, e].
    """
    heads = x.view(*x.shape[:2], -1, cos.shape[-1]).transpose(1, 2)
    turned = rotate(heads[:, :-num_key_heads], cos, sin)
    query, key, value = turned[:, :-num_key_heads], turned[:, -num_key_heads:], heads[:, -num_key_heads:]
    if copied:
        key, value = (_copied(t, query.shape[1] // num_key_heads) for t in (key, value))
    return query.contiguous(), key.contiguous(), value.contiguous()


def merge_heads(
    query: Tensor, key: Tensor, value: Tensor, cos: Tensor, sin: Tensor, num_key_heads: int, copied: bool
) -> Tensor:
    """The adjoint of ``split_heads``."""
    if copied:
        key, value = (_summed(t, num_key_heads) for t in (key, value))
    turned = rotate(torch.cat([query, key], 1), cos, -sin)
    return torch.cat([turned, value], 1).transpose(1, 2).reshape(query.shape[0], query.shape[2], -1)


def shares_gradient(gradient: Tensor, shares: Tensor, scale: float) -> Tensor:
    """The gradient of the scores, given that of their shares."""
    dtype = precise(shares.dtype)
    wide, gradient = shares.to(dtype), gradient.to(dtype)
    along = (gradient * wide).sum(-1, keepdim=True)
    return (wide * (gradient - along) * scale).to(shares.dtype)


def shares_adjoint(gradient: Tensor, other: Tensor, shares: Tensor, scale: float) -> Tensor:
    """The gradient of the scores: through the shares, which ``gradient`` and ``other`` both reach."""
    return shares_gradient(gradient.to(precise(shares.dtype)) + other, shares, scale)


def shares_second(
    outer: Tensor, other: Tensor, gradient: Tensor, shares: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Of ``shares_gradient(gradient, shares)``: the gradients of ``gradient`` and of ``shares``, to which ``other``."""
    dtype = precise(shares.dtype)
    above, below, wide = outer.to(dtype), gradient.to(dtype), shares.to(dtype)
    along, lost = (below * wide).sum(-1, keepdim=True), (above * wide).sum(-1, keepdim=True)
    for_gradient = wide * (above - lost) * scale
    for_shares = (above * (below - along) - lost * below) * scale + other
    return for_gradient.to(shares.dtype), for_shares.to(shares.dtype)


def errors(logits: Tensor, targets: Tensor) -> Tensor:
    """softmax(logits) - onehot(targets), [n, V]: the gradient of the cross entropy."""
    shares = torch.softmax(logits.to(precise(logits.dtype)), -1)
    return (shares - _one_hot(logits, targets, shares.dtype)).to(logits.dtype)


def errors_adjoint(outer: Tensor, errors: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the logits, given that of their ``errors`` up to each token's ``weight`` [n, 1]."""
    dtype = precise(errors.dtype)
    shares = errors.to(dtype) + _one_hot(errors, targets, dtype)
    above = outer.to(dtype)
    along = (above * shares).sum(-1, keepdim=True)
    return (shares * (above - along) * weight).to(errors.dtype)


def surprise(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy [n] of every token, and its gradient [n, V]."""
    wide = logits.to(precise(logits.dtype))
    total = torch.logsumexp(wide, -1, keepdim=True)
    chosen = _one_hot(logits, targets, wide.dtype)
    lost = total[:, 0] - (wide * chosen).sum(-1)
    return lost, (torch.exp(wide - total) - chosen).to(logits.dtype)


def departure(logits: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """KL(wanted || logits) [n] of every token, both given as logits, and its gradient [n, V]."""
    dtype = precise(logits.dtype)
    now, then = logits.to(dtype), wanted.to(dtype)
    total_now, total_then = torch.logsumexp(now, -1, keepdim=True), torch.logsumexp(then, -1, keepdim=True)
    shares = torch.exp(then - total_then)
    lost = (shares * ((then - total_then) - (now - total_now))).sum(-1)
    return lost, (torch.exp(now - total_now) - shares).to(logits.dtype)


def _copied(x: Tensor, copies: int) -> Tensor:
    return x[:, :, None].expand(-1, -1, copies, -1, -1).flatten(1, 2)


def _summed(x: Tensor, num_key_heads: int) -> Tensor:
    shared = x.reshape(x.shape[0], num_key_heads, -1, *x.shape[2:])
    return shared.sum(2, dtype=precise(x.dtype)).to(x.dtype)


def _one_hot(like: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
    return (torch.arange(like.shape[-1], device=like.device) == targets[:, None]).to(dtype)


PLAIN_KERNELS = Kernels(
    norm,
    added_norm,
    norm_adjoint,
    norm_second,
    added_norm_second,
    swiglu,
    swiglu_gradient,
    swiglu_adjoint,
    swiglu_second,
    split_heads,
    merge_heads,
    attention_shares,
    shares_gradient,
    shares_adjoint,
    shares_second,
    errors,
    errors_adjoint,
    surprise,
    departure,
)
