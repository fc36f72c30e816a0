"""The public face of attention for runs of tokens: refuse what is wrong, then the kernel or the reference."""

from __future__ import annotations

from torch import Tensor

from hope_kernels.arguments import require
from hope_kernels.attention_pool import require_numbers, require_query, runs_on_kernels
from hope_kernels.attention_prefill.reference import attention_prefill_reference
from hope_kernels.cms_delta.op import require_runs


def attention_prefill(
    query: Tensor, keys: Tensor, values: Tensor, slots: Tensor, starts: Tensor, pasts: Tensor, scale: float
) -> Tensor:
    """softmax(scale q K^T) V of runs of tokens, each over the positions of its slot up to its own; fp32 sums.

    On a CUDA device it never waits for the host and its grid depends on shapes alone. What a token gets depends on its
    own query and on its sequence's keys and values up to it, to the bit: not on where its prompt was cut into runs, on
    its neighbours, on B, on its slot or on T.

    Args:
        query: [N, Hq, D], rotated, the rows of B runs behind each other; Hq a multiple of Hk.
        keys, values: [S, T, Hk, D], pools by slot of query's dtype, dense behind the first axis; a view into a wider
            pool will do. Those of the runs' own tokens have been written (``cache_write``).
        slots: [B] int32; 0 is nobody's.
        starts: [B + 1] int32, 0 first and N last: run b has rows starts[b] to starts[b + 1].
        pasts: [B] int32, tokens of the sequence before the run: its row i stands at position pasts[b] + i, below T.
        scale: of the scores, usually D ** -0.5.

    Returns:
        [N, Hq, D] in query's dtype; zeros for slot 0. On a CUDA device, whose numbers are not looked at from the host,
        NaN for a slot that does not exist or a run that goes past T.

    Raises:
        ValueError: an argument does not fit.

    Source: arXiv 1706.03762, arXiv 2205.14135.
    """
    require_query(query, keys, values)
    look, positions = not query.is_cuda, keys.shape[1]
    count = require_runs("starts", starts, query, look=look)
    require_numbers("slots", slots, count, len(keys) - 1, query, look=look)
    require_numbers("pasts", pasts, count, positions, query, look=look)
    if look:
        furthest = int((pasts + starts.diff()).max())
        require(furthest <= positions, "pasts", f"such that a run ends at {furthest}", f"at most T = {positions} then")
    if runs_on_kernels(query, keys, values):
        from hope_kernels.attention_prefill.launch import launch_attention_prefill

        return launch_attention_prefill(query, keys, values, slots, starts, pasts, scale)
    return attention_prefill_reference(query, keys, values, slots, starts, pasts, scale)
