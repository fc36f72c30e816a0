"""Matrix functions of the optimizers: batched, and with a derivative of zero, not NaN, where the matrix is zero."""

from __future__ import annotations

import torch
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of Muon's Newton-Schulz step (Jordan et al. 2024): steep at zero, so that few steps suffice."""


def root(x: Tensor) -> Tensor:
    """The square root."""
    return x * inverse_root(x)


def inverse_root(x: Tensor) -> Tensor:
    """1 / sqrt(x), and 0 at 0."""
    there = x > 0
    return torch.where(there, torch.where(there, x, 1.0).rsqrt(), 0.0)


def square_norm(matrix: Tensor) -> Tensor:
    """The squared Frobenius norm, [..., 1, 1]."""
    return matrix.square().sum((-2, -1), keepdim=True)


def newton_schulz(matrix: Tensor, steps: int) -> Tensor:
    """Nearly the nearest matrix with orthonormal rows or columns: every singular value ends between about .7 and 1.2.

    Zero stays zero, and a factor on ``matrix`` changes nothing.

    Source: arXiv 2512.24695, Eqs 42-44, with Muon's polynomial of the fifth degree.
    """
    a, b, c = QUINTIC
    wide = matrix.shape[-2] <= matrix.shape[-1]
    x = matrix if wide else matrix.mT
    x = x * inverse_root(square_norm(x))
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT
