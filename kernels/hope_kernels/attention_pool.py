"""Keys and values by slot, as every attention op agrees on them, and what none of these ops can take.

Shape letters: S slots, T positions a slot, Hk key heads, Hq query heads, a multiple of Hk, D head size, B sequences,
N rows. Query head h reads key head h // (Hq / Hk). Slot 0 is nobody's: it is neither read nor written.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hope_kernels.arguments import require, require_dense_rows, require_float, require_shape

KERNEL_HEAD_SIZE = 128
KERNEL_GROUP = 8


def require_pools(keys: Tensor, values: Tensor, like: Tensor) -> None:
    """Raise ValueError unless keys and values [S, T, Hk, D] agree with each other and are on the device of ``like``."""
    for argument, tensor in (("keys", keys), ("values", values)):
        require(tensor.dim() == 4 and tensor.numel() > 0, f"{argument}'s shape", tuple(tensor.shape), "[S, T, Hk, D]")
        require_float(argument, tensor, like)
        require(tensor.dtype is like.dtype, f"{argument}'s dtype", tensor.dtype, f"the rows', {like.dtype}")
        require_dense_rows(argument, tensor)
    require_shape("values", values, tuple(keys.shape), "keys'")


def require_query(query: Tensor, keys: Tensor, values: Tensor) -> None:
    """Raise ValueError unless query [N, Hq, D] can read the pools."""
    require(query.dim() == 3 and query.numel() > 0, "query's shape", tuple(query.shape), "[N, Hq, D], all at least 1")
    require_float("query", query, query)
    require_pools(keys, values, query)
    heads, size = keys.shape[2:]
    require(query.shape[2] == size, "query's head size", query.shape[2], f"keys', {size}")
    require(query.shape[1] % heads == 0, "query's heads", query.shape[1], f"a multiple of keys', {heads}")


def require_numbers(argument: str, numbers: Tensor, count: int, most: int, like: Tensor, *, look: bool) -> None:
    """Raise ValueError unless there are ``count`` int32 numbers; ``look``: from 0 to ``most`` as well."""
    require_shape(argument, numbers, (count,), f"[{count}]")
    require(numbers.dtype is torch.int32, f"{argument}'s dtype", numbers.dtype, "int32")
    require(numbers.device == like.device, f"{argument}'s device", numbers.device, f"the rows', {like.device}")
    require(numbers.is_contiguous(), f"{argument}'s strides", numbers.stride(), "contiguous")
    if look and count:
        low, high = int(numbers.min()), int(numbers.max())
        require(low >= 0 and high <= most, argument, f"from {low} to {high}", f"0 to {most}")


def runs_on_kernels(query: Tensor, keys: Tensor, values: Tensor) -> bool:
    """Whether the kernels know these sizes and dtypes, and nobody asks for a gradient."""
    known = keys.shape[3] <= KERNEL_HEAD_SIZE and query.shape[1] // keys.shape[2] <= KERNEL_GROUP
    learns = torch.is_grad_enabled() and any(t.requires_grad for t in (query, keys, values))
    return query.is_cuda and known and query.element_size() <= 4 and not learns
