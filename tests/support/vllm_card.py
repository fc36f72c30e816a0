"""vLLM's build for CPUs made to start and step as it does on a card: it measures in a cache that it drops, captures
steps in which everybody draws a token, and replays them with rows of nobody behind the real ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from hope_kernels.cms_delta.projected_op import cms_delta_projected
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SIZES = (1, 2, 4)
"""Rows of the steps that are captured."""
READS_BACK = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::is_nonzero", "aten::unique2"}
LEAVES_DEVICE = {"tolist", "item", "numpy", "cpu", "__bool__", "__int__", "__float__", "__array__"}


class HostLooked(AssertionError):
    """A step that is captured asked for a value, which a card would have to be waited for."""


class Blind(TorchFunctionMode):
    """Refuses what takes a tensor's values to the host."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in LEAVES_DEVICE:
            raise HostLooked(func.__name__)
        return func(*args, **(kwargs or {}))


class Graph(TorchDispatchMode):
    """Every operation of a step, to be done again on the same tensors, whatever they hold by then."""

    def __init__(self):
        super().__init__()
        self.calls: list[Any] = []
        self.output: Any = None

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        by_mask = any(isinstance(leaf, torch.Tensor) and leaf.dtype is torch.bool for leaf in tree_leaves(args[1:]))
        if func.name().partition(".")[0] in READS_BACK or (func.name().startswith("aten::index") and by_mask):
            raise HostLooked(func.name())
        found = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, found))
        return found

    def replay(self):
        for func, args, kwargs, kept in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(kept), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)
        return self.output


def delta_without_looking(y_and_p, b_pool, slots, starts):
    """``cms_delta_projected`` of one row a sequence as a card computes it, whose host does not see the slots."""
    if starts is not None:
        return cms_delta_projected(y_and_p, b_pool, slots, starts)
    y, p = y_and_p.split(list(b_pool.shape[1:]), 1)
    return y + (b_pool.index_select(0, slots).to(y.dtype) @ p[:, :, None])[:, :, 0]


class Card:
    """Makes vLLM's build for CPUs start and step as on a card.

    Args:
        patch: a monkeypatch, while whose changes stand an engine is to be started and used.
        captures: False for a model whose operations look at values where there is no card: it launches one by one
            what would be replayed.

    Attributes:
        of_nobody: while the cache is measured, and when it is there, a step's rows and the plain model's.
        replays: of each its real rows, and the slots of all its rows.
    """

    def __init__(self, patch, *, captures: bool) -> None:
        from vllm.config import CUDAGraphMode
        from vllm.forward_context import BatchDescriptor
        from vllm.v1.worker.cpu_model_runner import CPUModelRunner
        from vllm.v1.worker.cpu_worker import CPUWorker

        self.graphs: dict[Any, Graph] = {}
        self.of_nobody: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.replays: list[tuple[int, list[int]]] = []
        self._captures, self._full = captures, CUDAGraphMode.FULL
        self._described = {size: BatchDescriptor(num_tokens=size, num_reqs=size, uniform=True) for size in SIZES}
        for owner, name, around in (
            (CPUModelRunner, "load_model", self._loaded),
            (CPUModelRunner, "_determine_batch_execution_and_padding", self._padded),
            (CPUWorker, "determine_available_memory", self._measured),
            (CPUWorker, "compile_or_warm_up_model", self._warmed),
        ):
            patch.setattr(owner, name, _around(getattr(owner, name), around))

    def _padded(self, runner, inner, num_tokens, num_reqs, *args, force_uniform_decode=None, **kwargs):
        """Steps in which everybody draws a token have one of ``SIZES``."""
        mode, found, *rest = inner(
            runner, num_tokens, num_reqs, *args, force_uniform_decode=force_uniform_decode, **kwargs
        )
        everybody_draws = num_tokens == num_reqs if force_uniform_decode is None else force_uniform_decode
        if kwargs.get("force_eager") or not everybody_draws:
            return mode, found, *rest
        return self._full, self._described[next(size for size in SIZES if size >= num_tokens)], *rest

    def _loaded(self, runner, inner, *args, **kwargs):
        inner(runner, *args, **kwargs)
        runner.model.forward = partial(self._forward, runner, runner.model.forward)

    def _forward(self, runner, inner, *args, **kwargs):
        from vllm.forward_context import get_forward_context

        context = get_forward_context()
        if context.cudagraph_runtime_mode != self._full:
            return inner(*args, **kwargs)
        key, step = context.batch_descriptor, next(iter(context.attn_metadata.values()))
        if self._captures and key not in self.graphs:
            graph = self.graphs[key] = Graph()
            with Blind(), graph:
                graph.output = inner(*args, **kwargs)
            return graph.output
        memories = getattr(runner.model, "memories", None)
        slots = memories.slots_of(step.block_table) if memories else step.state_indices_tensor_d
        self.replays.append((runner.input_batch.num_reqs, slots.flatten().tolist()))
        return self.graphs[key].replay() if self._captures else inner(*args, **kwargs)

    def _measured(self, worker, inner):
        """In a cache of its own, which is dropped, and whose bytes are NaN in every float from then on."""
        runner = worker.model_runner
        runner.compilation_config.max_cudagraph_capture_size = SIZES[-1]
        runner._init_minimal_kv_cache_for_profiling()
        self._capture(runner)
        if hasattr(runner.model, "memories"):
            self.of_nobody.append(_both_ways(runner))
        self.graphs.clear()
        for cache in tree_leaves(runner.kv_caches):
            cache.fill_(float("nan") if cache.is_floating_point() else -1)
        runner._cleanup_profiling_kv_cache()
        return inner(worker)

    def _warmed(self, worker, inner):
        found, runner = inner(worker), worker.model_runner
        self._capture(runner)
        if memories := getattr(runner.model, "memories", None):
            memories.pool[1:] = 1.0
            self.of_nobody.append(_both_ways(runner))
            memories.pool.zero_()
        return found

    def _capture(self, runner):
        for size in reversed(SIZES):
            runner._warmup_and_capture(self._described[size], cudagraph_runtime_mode=self._full, num_warmups=1)


def _around(inner: Callable[..., Any], around: Callable[..., Any]) -> Callable[..., Any]:
    return lambda owner, *args, **kwargs: around(owner, inner, *args, **kwargs)


def _both_ways(runner, size: int = SIZES[-1]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of a step of nobody, whose attention has metadata, with memories and without."""
    from vllm.config import CUDAGraphMode

    step = {"cudagraph_runtime_mode": CUDAGraphMode.NONE, "force_attention": True, "uniform_decode": True}
    runner.input_ids.cpu[:size] = torch.arange(7, 7 + size)
    ours = runner._dummy_run(size, skip_eplb=True, **step)[0].clone()
    memories = runner.model.memories
    memories.rows = lambda: None
    try:
        plain = runner._dummy_run(size, skip_eplb=True, **step)[0].clone()
    finally:
        del memories.rows
    return ours, plain
