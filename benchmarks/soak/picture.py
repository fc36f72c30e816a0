"""The run as one picture: rounds and their times, memory, pods, and what happened to them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.soak.watch import Sample

COLOURS = {"replaced": "tab:green", "killed": "tab:red", "added": "tab:blue", "sent away": "tab:gray"}
BINS = 120


def draw(
    path: Path, title: str, rounds: list[tuple[float, float]], samples: list[Sample], events: list[tuple[float, str]]
) -> None:
    """Write the picture; times are monotonic seconds."""
    began = samples[0].at
    figure = Figure(figsize=(11, 10), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    rate, times, memory, pods = figure.subplots(4, 1, sharex=True)
    minutes = [(sample.at - began) / 60 for sample in samples]
    _draw_rate(rate, rounds, began, samples[-1].at)
    times.plot([(at - began) / 60 for at, _ in rounds], [took for _, took in rounds], ".", markersize=2)
    times.set_yscale("log")
    times.set_ylabel("seconds a round")
    memory.plot(minutes, [sample.stayed for sample in samples], label="the pod that stayed")
    memory.plot(minutes, [sample.others or float("nan") for sample in samples], label="mean of the others", alpha=0.6)
    memory.plot(minutes, [sample.store for sample in samples], label="the store's data")
    memory.plot(minutes, [sample.users for sample in samples], label="the users' process")
    memory.set_ylabel("MiB")
    memory.set_ylim(bottom=0)
    memory.legend(fontsize=7)
    pods.step(minutes, [sample.num_pods for sample in samples], label="pods")
    pods.plot(minutes, [sample.saturation for sample in samples], label="saturation of the fullest pod")
    pods.set_ylim(bottom=0)
    pods.set_xlabel("minutes")
    pods.legend(fontsize=7)
    for axis in (rate, times, memory, pods):
        for at, what in events:
            axis.axvline((at - began) / 60, color=COLOURS[what], alpha=0.35, linewidth=1)
    rate.legend(
        handles=[rate.plot([], [], color=colour, label=f"a pod is {what}")[0] for what, colour in COLOURS.items()],
        fontsize=7, ncols=4, loc="lower center",
    )  # fmt: skip
    figure.savefig(path, dpi=80)


def _draw_rate(axis: Axes, rounds: list[tuple[float, float]], began: float, end: float) -> None:
    width = max(1.0, (end - began) / BINS)
    ended = Counter(int((at + took - began) / width) for at, took in rounds if at + took < end)
    bins = range(int((end - began) / width))
    axis.step([number * width / 60 for number in bins], [ended[number] / width for number in bins], where="post")
    axis.set_ylabel("rounds a second")
    axis.set_ylim(bottom=0)
