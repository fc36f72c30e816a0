"""Everything that is measured on a card, size by size."""

from __future__ import annotations

import torch

from benchmarks.report import Figure
from benchmarks.serving import steps
from benchmarks.serving.churn import churn
from benchmarks.serving.mixed import STREAMS, mixed
from benchmarks.serving.models import served
from benchmarks.serving.peer import peer
from benchmarks.serving.precision import precision

COUNTS = (1, 16, 64, 256, 512, 1024)


def measure_card(sizes: list[str], *, quick: bool) -> tuple[list[Figure], str]:
    """Figures of every size, and profiles of decode steps, prompts and lessons."""
    figures, profiles = precision(), []
    for name in sizes:
        figures += steps.measure(name, (1, 4) if quick else COUNTS)
        model = served(name, "cuda")
        profiles += steps.profiles(model, name)
        del model
        torch.cuda.empty_cache()
    figures += measure_load(sizes[-1], quick=quick)
    figures += peer(sizes[0], histories=(128,) if quick else (128, 2048, 8192))
    return figures, "\n\n".join(profiles)


def measure_load(name: str, *, quick: bool) -> list[Figure]:
    """Many users on few slots, and streams beside lessons through gRPC: what surrounds a step."""
    streams = 8 if quick else STREAMS
    model = served(name, "cuda")
    step_ms = steps.step_ms(model, streams)
    del model
    torch.cuda.empty_cache()
    figures = mixed(name, step_ms=step_ms, streams=streams, seconds=2.0 if quick else 10.0)
    return figures + churn(name, quick=quick)


def measure_reading(sizes: list[str]) -> tuple[list[Figure], str]:
    """Prompts and lessons of every size, and which kernels they spend their time in."""
    figures: list[Figure] = []
    profiles: list[str] = []
    for name in sizes:
        model = served(name, "cuda")
        for part in steps.reading(model, name):
            figures += part()
            torch.cuda.empty_cache()
        profiles += steps.profiles(model, name, counts=())
        del model
        torch.cuda.empty_cache()
    return figures, "\n\n".join(profiles)
