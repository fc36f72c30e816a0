"""Softmax attention and its SwiGLU level as served: stacked projections, and a cache of every slot."""

from __future__ import annotations

import torch
from hope_kernels.cms_delta.projected_op import cms_delta_projected
from hope_kernels.swiglu.op import swiglu
from torch import Tensor

from hope_serve.model.cms import Delta
from hope_serve.model.serving.attend import attend, attend_on_kernels
from hope_serve.model.serving.batch import Batch
from hope_serve.model.serving.cache import CacheLayer, Places
from hope_serve.model.serving.product import Shared, product


class ServedSoftmax:
    """W_o attention(x), rotary positions, heads in groups over fewer keys.

    Args:
        query_key_value: [(H + 2 K) e, d]. output: [d, H e].
        bias: of query, key and value, [(H + 2 K) e], or None.
        on_kernels: whether passes that nobody differentiates run on them; None: on a card.
    """

    def __init__(
        self, query_key_value: Tensor, output: Tensor, bias: Tensor | None, *, on_kernels: bool | None = None
    ) -> None:
        self._heads, self._output, self._bias = Shared.of(query_key_value), Shared.of(output), bias
        self._on_kernels = output.is_cuda if on_kernels is None else on_kernels

    def shared(self) -> list[Shared]:
        """The shared matrices."""
        return [self._heads, self._output]

    def initial(self) -> list[Tensor]:
        """None: a cache starts empty."""
        return []

    def run(self, x: Tensor, batch: Batch, state: CacheLayer, shared: Places) -> Tensor:  # noqa: ARG002
        """x: [N, d] to [N, d]; the cache grows by the rows."""
        rows = product(x, self._heads)
        learns = torch.is_grad_enabled() and rows.requires_grad
        mix = attend_on_kernels if self._on_kernels and not learns else attend
        return product(mix(rows, self._bias, state, shared).flatten(1), self._output)


class ServedSwiglu:
    """(W_down + B A) swiglu(W x) of every row's own B; W_down and A stacked, so that both products are one."""

    online = True

    def __init__(self, gate_up: Tensor, down_and_projection: Tensor, hidden_size: int) -> None:
        self._gate_up, self._stacked = Shared.of(gate_up), Shared.of(down_and_projection)
        self._width = hidden_size

    def shared(self) -> list[Shared]:
        """The shared matrices."""
        return [self._gate_up, self._stacked]

    def run(self, x: Tensor, batch: Batch, delta: Delta | None) -> Tensor:
        """x: [N, d] to [N, d]. ``delta``: B in its outer side, [S, d, r]; None reads the level as it came."""
        wide = swiglu(product(x, self._gate_up))
        if delta is None or not batch.reads_memory:
            return product(wide, self._stacked, height=self._width)
        both = product(wide, self._stacked)
        return cms_delta_projected(both, delta.outer, batch.memory_slots, batch.starts, remembers=batch.remembers)
