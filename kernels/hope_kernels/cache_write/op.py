"""The public face of the cache's writing: refuse what is wrong, then the kernel or the reference."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_kernels.arguments import require, require_float, require_shape
from hope_kernels.attention_pool import require_numbers, require_pools
from hope_kernels.cache_write.reference import cache_write_reference
from hope_kernels.spans import spanned


@spanned("commit")
def cache_write(
    qkv: Tensor,
    positions: Tensor,
    slots: Tensor,
    cos: Tensor,
    sin: Tensor,
    keys: Tensor,
    values: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """Rotates queries and keys to their positions, writes keys and values into their slots in place; fp32 throughout.

    One launch on a CUDA device, which never waits for the host. Rotation is by halves: element i turns with element
    i + D / 2, as in checkpoints of Llama and Qwen2 in Hugging Face's layout.

    Args:
        qkv: [N, (Hq + 2 Hk) D], each row its queries, then its keys, then its values.
        positions: [N] int32, below T, and below the tables' height. Two rows must not share slot and position.
        slots: [N] int32, of each row; 0 is nobody's: its keys and values go nowhere.
        cos, sin: [P, D / 2], of ``rotation_tables``.
        keys, values: [S, T, Hk, D], pools by slot of qkv's dtype, dense behind the first axis; a view into a wider
            pool will do.
        bias: [(Hq + 2 Hk) D], added first; None for none.

    Returns:
        Rotated queries, [N, Hq, D] in qkv's dtype; zeros for slot 0. On a CUDA device, whose numbers are not looked at
        from the host, NaN for a slot or a position that does not exist, and nothing is written for it.

    Raises:
        ValueError: an argument does not fit.

    Source: arXiv 2104.09864 (RoPE).
    """
    require(qkv.dim() == 2 and qkv.numel() > 0, "qkv's shape", tuple(qkv.shape), "[N, (Hq + 2 Hk) D], at least one row")
    require_float("qkv", qkv, qkv)
    require_pools(keys, values, qkv)
    (heads, size), width = keys.shape[2:], qkv.shape[1]
    holds = width % (heads * size) == 0 and width > 2 * heads * size
    require(holds, "qkv's width", width, f"(Hq + 2 Hk) D with Hk = {heads}, D = {size} and Hq a multiple of Hk")
    require(size % 2 == 0, "keys' head size", size, "even, since it turns by halves")
    for argument, table in (("cos", cos), ("sin", sin)):
        require_shape(argument, table, (len(cos), size // 2), "[P, D / 2]")
        require_float(argument, table, qkv)
    if bias is not None:
        require_shape("bias", bias, (width,), "[(Hq + 2 Hk) D]")
        require_float("bias", bias, qkv)
    look, most = not qkv.is_cuda, min(len(cos), keys.shape[1]) - 1
    require_numbers("positions", positions, len(qkv), most, qkv, look=look)
    require_numbers("slots", slots, len(qkv), len(keys) - 1, qkv, look=look)
    learns = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (qkv, bias))
    if qkv.is_cuda and qkv.element_size() <= 4 and not learns:
        from hope_kernels.cache_write.launch import launch_cache_write

        return launch_cache_write(qkv, positions, slots, cos, sin, keys, values, bias)
    return cache_write_reference(qkv, positions, slots, cos, sin, keys, values, bias)
