"""Softmax attention and its SwiGLU level as served: stacked projections, and a cache of every slot."""

from __future__ import annotations

from hope_kernels.cms_delta.projected_op import cms_delta_projected
from torch import Tensor

from hope_serve.model.attention import AttentionShape
from hope_serve.model.attention_ops import rotate, swiglu
from hope_serve.model.cms import Delta
from hope_serve.model.serving.attend import attend
from hope_serve.model.serving.batch import Batch
from hope_serve.model.serving.cache import CacheLayer, Places
from hope_serve.model.serving.product import product


class ServedSoftmax:
    """W_o attention(x), rotary positions, heads in groups over fewer keys; ``bias`` of query, key and value or None."""

    def __init__(self, shape: AttentionShape, query_key_value: Tensor, output: Tensor, bias: Tensor | None) -> None:
        self._shape, self._heads, self._output, self._bias = shape, query_key_value, output, bias

    def weights(self) -> list[Tensor]:
        """The shared matrices."""
        return [self._heads, self._output]

    def initial(self) -> list[Tensor]:
        """None: a cache starts empty."""
        return []

    def run(self, x: Tensor, batch: Batch, state: CacheLayer, shared: Places) -> Tensor:
        """x: [N, d] to [N, d]; the cache grows by the rows."""
        shape = self._shape
        rows = product(x, self._heads)
        rows = rows if self._bias is None else rows + self._bias
        split = rows.view(len(x), -1, shape.head_size)
        turned = rotate(split[:, : -shape.num_key_heads].to(shared.cos.dtype), shared.cos, shared.sin).to(x.dtype)
        query, key = turned[:, : shape.num_heads], turned[:, shape.num_heads :]
        mixed = attend(query, key, split[:, -shape.num_key_heads :], state, batch, shared)
        return product(mixed.flatten(1), self._output)


class ServedSwiglu:
    """(W_down + B A) swiglu(W x) of every row's own B; W_down and A stacked, so that both products are one."""

    online = True

    def __init__(self, gate_up: Tensor, down_and_projection: Tensor, hidden_size: int) -> None:
        self._gate_up, self._stacked, self._width = gate_up, down_and_projection, hidden_size

    def weights(self) -> list[Tensor]:
        """The shared matrices."""
        return [self._gate_up, self._stacked]

    def run(self, x: Tensor, batch: Batch, delta: Delta | None) -> Tensor:
        """x: [N, d] to [N, d]. ``delta``: B in its outer side, [S, d, r]; None reads the level as it came."""
        wide = swiglu(product(x, self._gate_up))
        if delta is None or not batch.reads_memory:
            return product(wide, self._stacked[: self._width])
        both = product(wide, self._stacked)
        return cms_delta_projected(both, delta.outer, batch.memory_slots, batch.starts, remembers=batch.remembers)
