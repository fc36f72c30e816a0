"""The public face of attention for decoding: refuse what is wrong, then the kernels or the reference."""

from __future__ import annotations

from torch import Tensor

from hope_kernels.attention_decode.reference import attention_decode_reference
from hope_kernels.attention_pool import require_numbers, require_query, runs_on_kernels
from hope_kernels.spans import spanned


@spanned("read")
def attention_decode(
    query: Tensor, keys: Tensor, values: Tensor, slots: Tensor, lengths: Tensor, scale: float
) -> Tensor:
    """softmax(scale q K^T) V of one token a sequence, over the first ``lengths`` positions of its slot; fp32 sums.

    On a CUDA device it never waits for the host and its grid depends on shapes alone. What a sequence gets depends on
    its own query, keys and values, to the bit: not on its neighbours, on B, on its slot or on T.

    Args:
        query: [B, Hq, D], rotated; Hq a multiple of Hk.
        keys, values: [S, T, Hk, D], pools by slot of query's dtype, dense behind the first axis; a view into a wider
            pool will do.
        slots: [B] int32; 0 is nobody's.
        lengths: [B] int32, positions that are read, the new token's own among them, which ``cache_write`` has
            written; 0 to T.
        scale: of the scores, usually D ** -0.5.

    Returns:
        [B, Hq, D] in query's dtype. Zeros for slot 0 and for length 0. On a CUDA device, whose numbers are not looked
        at from the host, NaN for a slot that does not exist or a length past T.

    Raises:
        ValueError: an argument does not fit.

    Source: arXiv 1706.03762; in parts that are added up, arXiv 2205.14135.
    """
    require_query(query, keys, values)
    count = len(query)
    require_numbers("slots", slots, count, len(keys) - 1, query, look=not query.is_cuda)
    require_numbers("lengths", lengths, count, keys.shape[1], query, look=not query.is_cuda)
    if runs_on_kernels(query, keys, values):
        from hope_kernels.attention_decode.launch import launch_attention_decode

        return launch_attention_decode(query, keys, values, slots, lengths, scale)
    return attention_decode_reference(query, keys, values, slots, lengths, scale)
