"""The engine's own parts on a card: decode, prefill, lessons, and a user into a slot; floors from the same run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.report import Figure
from benchmarks.serving.models import decode_bytes, fill, served, slots
from hope_serve.api import AdaptOptions
from hope_serve.engine.graphs import DecodeGraphs
from hope_serve.engine.lesson import Lesson
from hope_serve.engine.pools import Pools
from hope_serve.engine.teaching import Teaching
from hope_serve.model.cadence import Cadence
from hope_serve.model.serving.batch import Batch
from hope_serve.model.serving.model import ServedModel

GOAL_MS = {1: 1.6, 64: 2.6, 256: 4.2, 512: 6.5}


def device_ms(call: Callable[[], object], repeats: int = 30) -> float:
    """Median milliseconds on the device."""
    for _ in range(3):
        call()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def bandwidth() -> float:
    """Bytes a second that a sum over 8 GiB reads."""
    x = torch.ones(2**31, dtype=torch.float32, device="cuda")
    return x.numel() * 4 / device_ms(x.sum, 10) * 1e3


def step_ms(model: ServedModel, count: int) -> float:
    """Milliseconds of a greedy step of ``count`` different users."""
    pools = Pools(model, count)
    graphs = DecodeGraphs(model, pools, sizes=[count])
    fill(pools, model)
    captured = graphs.captured(count, fills_chunk=True)
    captured.slots.copy_(slots(count, model.device))
    return device_ms(captured.graph.replay)


def decode(model: ServedModel, name: str, count: int, read: float) -> list[Figure]:
    """A step of ``count`` different users: greedy, sampled, and without memories."""
    pools = Pools(model, count)
    graphs = DecodeGraphs(model, pools, sizes=[count])
    figures = []
    base = 0.0
    for kind in ("greedy", "sampled", "no memories"):
        fill(pools, model, temperature=0.8 if kind == "sampled" else 0.0)
        memory = kind != "no memories"
        captured = graphs.captured(count, fills_chunk=True, reads_memory=memory)
        captured.slots.copy_(slots(count, model.device))
        ms = device_ms(captured.graph.replay)
        base = base or ms
        floor = decode_bytes(model, count, memory=memory) / read * 1e3
        goal = f"<= {GOAL_MS[count]}" if kind == "greedy" and name == "1.3b" and count in GOAL_MS else ""
        figures.append(Figure(f"{name}, {count} users, {kind}: step", ms, "ms", goal))
        figures.append(Figure(f"{name}, {count} users, {kind}: tokens", count / ms * 1e3, "tokens/s"))
        figures.append(Figure(f"{name}, {count} users, {kind}: over the byte floor", ms / floor, "times"))
        if kind == "sampled":
            figures.append(Figure(f"{name}, {count} users: sampled over greedy", ms / base, "times", "<= 1.05"))
        if kind == "no memories":
            figures.append(Figure(f"{name}, {count} users: with over without memories", base / ms, "times", "<= 1.35"))
    return figures


def prefill(model: ServedModel, name: str, count: int, length: int) -> list[Figure]:
    """Prompts of ``count`` users, ``length`` tokens each, in one pass."""
    batch, pools = prompts(model, count, length)
    with torch.no_grad():
        ms = device_ms(lambda: model.run(batch, pools.state, pools.deltas), 5)
    goal = {(8, 2048): ">= 200,000", (1, 8192): ">= 120,000"}.get((count, length), "") if name == "1.3b" else ""
    return [Figure(f"{name}, prefill {count} x {length}", count * length / ms * 1e3, "tokens/s", goal)]


def prompts(model: ServedModel, count: int, length: int) -> tuple[Batch, Pools]:
    """Prompts of ``length`` tokens, and the pools of users who have said nothing yet."""
    pools = Pools(model, count)
    fill(pools, model)
    for slot in range(1, count + 1):
        pools.state.clear(slot)
    batch = Batch(
        tokens=torch.randint(0, model.config.vocab_size, (count * length,), device=model.device),
        slots=slots(count, model.device),
        starts=torch.arange(0, count * length + 1, length, dtype=torch.int32, device=model.device),
        remembers=pools.remembers,
    )
    return batch, pools


def lessons(model: ServedModel, name: str, count: int, length: int) -> list[Figure]:
    """Adaptations of ``count`` users at once, the closing reading included."""
    teaching = Teaching(model, count, alone=False)
    teaching.capture()

    def run() -> float:
        pupils = [pupil(model, teaching, length) for _ in range(count)]
        torch.cuda.synchronize()
        began = time.perf_counter()
        while left := [one for one in pupils if not one.finished]:
            if refused := teaching.step(left):
                raise RuntimeError(f"random weights refuse to learn: {refused[0][1]}")
        torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        for one in pupils:
            teaching.end(one)
        return seconds

    run()
    seconds = run()
    goal = {16: ">= 40,000", 1: ""}.get(count, "") if name == "1.3b" else ""
    figures = [Figure(f"{name}, Adapt, {count} users of {length} tokens", count * length / seconds, "tokens/s", goal)]
    if count == 1:
        figures.append(Figure(f"{name}, Adapt of {length} tokens", seconds, "s", "<= 0.6" if name == "1.3b" else ""))
    return figures


def pupil(model: ServedModel, teaching: Teaching, length: int) -> Lesson:
    """A lesson of ``length`` tokens at its beginning, of somebody who has learned nothing."""
    sizes = tuple(model.config.levels[i].chunk_size for i in model.config.online_levels)
    lesson = Lesson(
        tokens=tuple(torch.randint(0, model.config.vocab_size, (length + 1,)).tolist()),
        before=torch.zeros(teaching.layout.num_bytes, dtype=torch.uint8),
        cadence=Cadence(chunk_sizes=sizes),
        options=AdaptOptions(),
    )
    teaching.begin(lesson)
    return lesson


def slot_loading(model: ServedModel, name: str) -> list[Figure]:
    """A returning user's conversation and memory from pinned rows into a slot."""
    pools = Pools(model, 8)
    state = torch.zeros(pools.state.layout.num_bytes, dtype=torch.uint8, pin_memory=True)
    deltas = torch.zeros(model.delta_layout(model.precision.deltas).num_bytes, dtype=torch.uint8, pin_memory=True)
    fresh = device_ms(lambda: (pools.state.clear(1), pools.bring(1, deltas)))
    both = device_ms(lambda: (pools.state.load(1, state), pools.bring(1, deltas)))
    return [
        Figure(f"{name}, a user into a slot, memory alone ({len(deltas) / 2**20:.1f} MiB)", fresh, "ms", "<= 1"),
        Figure(f"{name}, a user into a slot, conversation too ({len(state) / 2**20:.1f} MiB)", both, "ms"),
    ]


def profiles(model: ServedModel, name: str, counts: tuple[int, ...] = (1, 256)) -> list[str]:
    """Where the device's time goes, by kernel: decode steps, prompts, and a segment of lessons."""
    return [
        *(decode_profile(model, name, count) for count in counts),
        *(prefill_profile(model, name, count, length) for count, length in ((8, 2048), (1, 8192))),
        *(lesson_profile(model, name, count) for count in (1, 16)),
    ]


def decode_profile(model: ServedModel, name: str, count: int) -> str:
    """A step of ``count`` users."""
    pools = Pools(model, count)
    graphs = DecodeGraphs(model, pools, sizes=[count])
    fill(pools, model)
    captured = graphs.captured(count, fills_chunk=True)
    captured.slots.copy_(slots(count, model.device))
    return by_kernel(f"{name}, {count} users", captured.graph.replay)


def prefill_profile(model: ServedModel, name: str, count: int, length: int) -> str:
    """A pass over prompts."""
    batch, pools = prompts(model, count, length)
    with torch.no_grad():
        return by_kernel(
            f"{name}, prefill {count} x {length}",
            lambda: model.run(batch, pools.state, pools.deltas),
        )


def lesson_profile(model: ServedModel, name: str, count: int) -> str:
    """One segment of ``count`` users."""
    teaching = Teaching(model, count, alone=False)
    teaching.capture()
    length = min(model.config.levels[i].chunk_size for i in model.config.online_levels)
    pupils = [pupil(model, teaching, 8 * length) for _ in range(count)]
    return by_kernel(f"{name}, a segment of {count} x {length}", lambda: teaching.step(pupils))


def by_kernel(title: str, call: Callable[[], object]) -> str:
    """What runs on the device during the second of two calls, kernel by kernel, and how long it had nothing to do."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as traced

    call()
    torch.cuda.synchronize()
    with traced(activities=[ProfilerActivity.CUDA]) as trace:
        began = time.perf_counter()
        call()
        torch.cuda.synchronize()
        passed = time.perf_counter() - began
    by: dict[str, list[float]] = {}
    for event in trace.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            entry = by.setdefault(event.name[:60], [0, 0.0])
            entry[0] += 1
            entry[1] += event.device_time
    total = sum(entry[1] for entry in by.values())
    rows = sorted(by.items(), key=lambda item: -item[1][1])[:20]
    launches = sum(int(e[0]) for e in by.values())
    lines = [f"{title}: {launches} launches, {total / 1e3:.2f} ms busy of {passed * 1e3:.2f} (traced)"]
    lines += [f"  {int(n):5d} {us / 1e3:7.3f} ms {us / total:5.1%}  {kernel}" for kernel, (n, us) in rows]
    return "\n".join(lines)


def reading(model: ServedModel, name: str) -> list[Callable[[], list[Figure]]]:
    """Prompts and lessons."""
    return [
        lambda: prefill(model, name, 8, 2048),
        lambda: prefill(model, name, 1, 8192),
        lambda: lessons(model, name, 1, 4096),
        lambda: lessons(model, name, 16, 4096),
    ]


def measure(name: str = "1.3b", counts: tuple[int, ...] = (1, 16, 64, 256, 512)) -> list[Figure]:
    """Everything, for one size."""
    read = bandwidth()
    figures = [Figure("read bandwidth", read / 1e12, "TB/s")]
    model = served(name, "cuda")
    parts: list[Callable[[], list[Figure]]] = [
        *(lambda n=n: decode(model, name, n, read) for n in counts),
        *reading(model, name),
        lambda: slot_loading(model, name),
    ]
    for part in parts:
        found = part()
        for figure in found:
            print(f"{figure.name}: {figure.spelled()} {figure.unit} {figure.target}", flush=True)
        figures += found
        torch.cuda.empty_cache()
    return figures
