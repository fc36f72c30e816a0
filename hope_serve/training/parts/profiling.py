"""Where the time of a training step goes: seconds of every kind of batch, and the kernels that take most of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from hope_serve.model.attention import AttentionShape
from hope_serve.training.parts.batches import Batch
from hope_serve.training.parts.buckets import batch_flops
from hope_serve.training.parts.packing import Bucket
from hope_serve.training.parts.progress import PEAK_FLOPS

SHOWN = 25
"""Kernels of a table."""
WARM_UPS = 2

Add = Callable[[Batch, Bucket], Tensor]


def profiled(
    batches: Iterable[tuple[Batch, Bucket]], shape: AttentionShape, timed: Add, shown: Add, *, steps: int
) -> Iterator[str]:
    """Lines of text for every batch.

    Args:
        timed: adds a batch's gradient as a run does it, by captured graphs where it has them; ``steps`` times after
            ``WARM_UPS``.
        shown: the same kernels one by one, for the profiler.
    """
    for batch, bucket in batches:
        seconds = _seconds(timed, batch, bucket, steps)
        share = batch_flops(shape, bucket) / statistics.median(seconds) / PEAK_FLOPS
        yield (
            f"{bucket.name}: {statistics.median(seconds) * 1e3:.1f} ms a batch, {min(seconds) * 1e3:.1f} to "
            f"{max(seconds) * 1e3:.1f} of {steps}, {share:.1%} of peak"
        )
        yield from _kernels(shown, batch, bucket)


def _seconds(add: Add, batch: Batch, bucket: Bucket, steps: int) -> list[float]:
    for _ in range(WARM_UPS):
        add(batch, bucket)
    return [_one(add, batch, bucket) for _ in range(steps)]


def _one(add: Add, batch: Batch, bucket: Bucket) -> float:
    """Seconds on the device, or on the clock where that is a CPU."""
    if not batch.taught.is_cuda:
        started = time.perf_counter()
        add(batch, bucket)
        return time.perf_counter() - started
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    add(batch, bucket)
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def _kernels(add: Add, batch: Batch, bucket: Bucket) -> Iterator[str]:
    """The kernels of one batch by the time that each takes in all its calls; operations, on a CPU."""
    on_card = batch.taught.is_cuda
    add(batch, bucket)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_card else [])]
    with profile(activities=activities) as seen:
        add(batch, bucket)
        if on_card:
            torch.cuda.synchronize()
    wanted = DeviceType.CUDA if on_card else DeviceType.CPU
    rows = [
        (e.self_device_time_total if on_card else e.self_cpu_time_total, e.count, e.key)
        for e in seen.key_averages()
        if e.device_type == wanted
    ]
    total = sum(row[0] for row in rows)
    yield f"  {total / 1e3:.1f} ms in {sum(row[1] for row in rows)} calls"
    for micros, count, name in sorted(rows, reverse=True)[:SHOWN]:
        share = micros / max(total, 1e-9)
        yield f"  {micros / 1e3:9.2f} ms {share:6.1%} {count:6} x {micros / count:8.1f} us  {name[:100]}"
