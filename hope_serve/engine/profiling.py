"""Where a decode step's time goes, part by part, against the bytes that each part cannot do without."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hope_kernels.spans import SPANS
from torch.profiler import ProfilerActivity, profile

from hope_serve.api import SamplingParams, TokenLogprob
from hope_serve.api.engine import Purpose
from hope_serve.config import EngineConfig
from hope_serve.engine.meter import Meter
from hope_serve.engine.pools import Pools
from hope_serve.engine.runner import Runner
from hope_serve.engine.scheduler import Scheduler
from hope_serve.engine.sequence import Sequence, Start
from hope_serve.engine.stepper import Device, Stepper
from hope_serve.engine.teaching import Teaching
from hope_serve.metrics import Metrics
from hope_serve.model.serving.model import Loaded, ServedModel
from hope_serve.model.serving.precision import Precision

PARTS = (*SPANS, "other", "host")
"""``other``: what the device does beside the named; ``host``: while the device has nothing to do."""
KERNELS = {
    "projections": ("sum_kernel", "dot_kernel", "nvjet", "gemm", "gemv", "cutlass", "splitK"),
    "read": ("read_kernel", "mlp_read_kernel", "causal_kernel", "part_kernel", "join_kernel"),
    "project": ("project_kernel", "mlp_memory_kernel", "mlp_shared_kernel"),
    "deltas": ("projected_decode_kernel", "delta_decode_kernel"),
    "commit": ("commit_kernel", "mlp_commit_kernel", "solve_kernel", "empty_kernel", "write_kernel"),
    "norms": ("residual_norm_kernel",),
    "conv": ("decode_kernel", "conv_kernel"),
    "sampling": ("shape_kernel", "draw_kernel", "cut_kernel", "top_kernel"),
}
"""What a kernel's name begins with, or holds where it is a library's; the longest that fits counts."""
WARM_STEPS, STEPS = 8, 16


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a step. calls: launches on a device, ops on a CPU. floor_ms: its bytes at the read bandwidth."""

    name: str
    calls: float
    ms: float
    floor_ms: float


@dataclass(frozen=True, kw_only=True)
class StepProfile:
    """A decode step of ``sequences``; on a CPU parts are shares of what was traced, times the step without a trace."""

    sequences: int
    ms: float
    floor_ms: float
    bandwidth: float
    parts: tuple[Part, ...]


@torch.no_grad()
def profile_decode(
    checkpoint: Loaded, config: EngineConfig, device: str, count: int, *, trace: Path | None = None
) -> StepProfile:
    """Decode ``count`` sequences, each with a memory of its own, at places that are spread over a chunk.

    Args:
        trace: where a Chrome trace of ``STEPS`` steps goes.
    """
    decode = _Decode(checkpoint, config, device, count)
    decode.run(WARM_STEPS)
    ms = decode.run(STEPS)
    if decode.model.device.type == "cuda":
        traced, _ = _traced(decode, [ProfilerActivity.CUDA])
        found = _by_kernel(traced.events())
        scale, whole = 1.0, ms
    else:
        traced, whole = _traced(decode, [ProfilerActivity.CPU])
        found = _by_span(traced.events())
        scale = ms / whole
    if trace:
        traced.export_chrome_trace(str(trace))
    found["host"] = (0.0, max(0.0, whole - sum(ms for _, ms in found.values())))
    moved = step_bytes(decode.model, count)
    bandwidth = read_bandwidth(decode.model.device, sum(moved.values()))
    parts = [
        Part(name=name, calls=calls, ms=part_ms * scale, floor_ms=moved.get(name, 0) / bandwidth * 1e3)
        for name, (calls, part_ms) in found.items()
    ]
    floor_ms = sum(part.floor_ms for part in parts)
    return StepProfile(sequences=count, ms=ms, floor_ms=floor_ms, bandwidth=bandwidth, parts=tuple(parts))


def _traced(decode: _Decode, activities: list[ProfilerActivity]) -> tuple[Any, float]:
    """A trace of ``STEPS`` steps, and the milliseconds that each took with it."""
    with profile(activities=activities) as traced:
        ms = decode.run(STEPS)
    return traced, ms


def step_bytes(model: ServedModel, count: int) -> dict[str, int]:
    """The fewest bytes that each part of a step moves, on average over a chunk: weights once, the rest a sequence."""
    config, precision = model.config, model.precision
    products, memories = model.weight_bytes()
    rows = count * config.hidden_size * precision.compute.itemsize
    return {
        "projections": products,
        "project": memories,
        "deltas": count * model.delta_layout(precision.deltas).num_bytes,
        "norms": 3 * rows * config.num_layers * (1 + len(config.levels)),
        "sampling": count * config.vocab_size * 4,
    } | {name: count * moved for name, moved in model.kind.state_traffic(precision).items()}


def read_bandwidth(device: torch.device, num_bytes: int) -> float:
    """Bytes a second of summing as many bytes as a step reads, but at least 8 MiB; the best of several times."""
    x = torch.ones(max(num_bytes, 2**23) // 4, device=device)
    best = math.inf
    for _ in range(20):
        _wait(device)
        began = time.perf_counter()
        x.sum()
        _wait(device)
        best = min(best, time.perf_counter() - began)
    return x.numel() * 4 / best


class _Decode:
    """The engine's own step, without an event loop around it."""

    def __init__(self, checkpoint: Loaded, config: EngineConfig, device: str, count: int) -> None:
        precision = Precision.of(checkpoint.config, device, state=config.state_dtype)
        self.model = ServedModel(checkpoint.model, device=device, precision=precision)
        scheduler = Scheduler(max_step_tokens=1 << 20, max_queue_tokens=1 << 40)
        pools = Pools(self.model, count)
        made = Device(
            pools=pools,
            runner=Runner(self.model, pools, deterministic=config.deterministic),
            teaching=Teaching(self.model, 1, alone=False),
            looks_ahead=self.model.device.type == "cuda",
        )
        self._stepper = Stepper(scheduler, made, Meter(Metrics(), scheduler))
        chunk = self.model.kind.cut_tokens[0]
        memory = torch.zeros(self.model.delta_layout(precision.deltas).num_bytes, dtype=torch.uint8)
        for number in range(count):
            sequence = _endless(1 + number * chunk // count % chunk, memory.clone())
            scheduler.admit(sequence)
            scheduler.add(sequence)
        self._stepper.step()
        _wait(self.model.device)

    def run(self, steps: int) -> float:
        """Take so many steps; milliseconds of each."""
        began = time.perf_counter()
        for _ in range(steps):
            self._stepper.step()
        _wait(self.model.device)
        return (time.perf_counter() - began) / steps * 1e3


class _Nobody:
    """A listener that leaves the rest to the engine."""

    def on_token(self, sequence: Sequence, drawn: TokenLogprob) -> bool:  # noqa: ARG002
        """Go on."""
        return False

    def on_end(self, sequence: Sequence) -> None:
        """Nobody waits."""


def _endless(num_prompt: int, memory: torch.Tensor) -> Sequence:
    sampling = SamplingParams(temperature=0.0, max_tokens=2**20, ignore_eos=True)
    tokens = list(range(1, 1 + num_prompt))
    start = Start(memory=memory)
    return Sequence(purpose=Purpose.GENERATE, tokens=tokens, listener=_Nobody(), start=start, sampling=sampling)


def _by_kernel(events: Iterable[Any]) -> dict[str, tuple[float, float]]:
    """(launches, milliseconds) a step of every part, by the names of kernels."""
    found = {name: [0.0, 0.0] for name in PARTS}
    for event in events:
        if event.device_type.name == "CUDA":
            one = found[part_of_kernel(event.name)]
            one[0] += 1
            one[1] += event.device_time
    return _a_step(found)


def part_of_kernel(name: str) -> str:
    """The part of a step that a kernel belongs to."""
    fits = [(len(known), part) for part, names in KERNELS.items() for known in names if _is_kernel(name, known)]
    return max(fits)[1] if fits else "other"


def _is_kernel(name: str, known: str) -> bool:
    return name.startswith(known) if known.endswith("_kernel") else known in name


def _by_span(events: Iterable[Any]) -> dict[str, tuple[float, float]]:
    """(ops, milliseconds) a step of every part: a span's own time is what no span inside it takes."""
    found = {name: [0.0, 0.0] for name in PARTS}
    for event in events:
        parent = event.cpu_parent
        if event.name in SPANS:
            found[event.name][1] += event.cpu_time_total
            if around := _span_around(event):
                found[around][1] -= event.cpu_time_total
        elif parent is None:
            found["other"][0] += 1
            found["other"][1] += event.cpu_time_total
        elif parent.name in SPANS:
            found[parent.name][0] += 1
    return _a_step(found)


def _a_step(found: dict[str, list[float]]) -> dict[str, tuple[float, float]]:
    return {name: (calls / STEPS, us / STEPS / 1e3) for name, (calls, us) in found.items()}


def _span_around(event: Any) -> str:
    parent = event.cpu_parent
    while parent is not None:
        if parent.name in SPANS:
            return str(parent.name)
        parent = parent.cpu_parent
    return ""


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
