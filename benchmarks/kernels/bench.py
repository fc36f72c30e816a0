"""How large everything is, and how time is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

import torch
from triton.testing import do_bench


class Mode(Enum):
    """MEASURE: the real thing. WARM: every kernel once, so that it is compiled. REHEARSE: tiny, on a CPU."""

    MEASURE = "measure"
    WARM = "warm"
    REHEARSE = "rehearse"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of the model that is timed (hidden size 2048), and of its crowd."""

    layers: int = 24
    shapes: tuple[tuple[int, int], ...] = ((16, 128), (32, 64))
    batches: tuple[int, ...] = (1, 16, 64, 256, 1024)
    chunks: tuple[int, ...] = (16, 64)
    width: int = 2048
    wide: int = 8192
    users: int = 256
    learners: int = 64
    tokens: int = 512
    prefill: int = 32768
    long: int = 65536

    def crowd(self) -> int:
        """The batch that most targets speak of."""
        return min(self.users, self.batches[-1])


TINY = Sizes(
    layers=2,
    shapes=((2, 16),),
    batches=(1, 3),
    chunks=(4,),
    width=32,
    wide=48,
    users=20,
    learners=3,
    tokens=20,
    prefill=64,
    long=64,
)


@dataclass(kw_only=True)
class Bench:
    """One run. ``read``, ``copy``: measured bandwidth, bytes a second, a copy counted both ways."""

    mode: Mode
    sizes: Sizes
    sweep: bool = False
    read: float = 1e12
    copy: float = 1e12
    device: str = field(init=False)

    def __post_init__(self) -> None:
        self.device = "cpu" if self.mode is Mode.REHEARSE else "cuda"

    @property
    def measures(self) -> bool:
        """Whether times mean anything."""
        return self.mode is Mode.MEASURE

    def replay(self, call: Callable[[], object]) -> float:
        """Median seconds of a CUDA graph of ``call``."""
        if not self.measures:
            call()
            return 1e-3
        return do_bench(captured(call), warmup=10, rep=60, return_mode="median") * 1e-3

    def repeat(self, call: Callable[[], object]) -> float:
        """Median seconds of ``call``, launches included."""
        if not self.measures:
            call()
            return 1e-3
        return do_bench(call, warmup=10, rep=60, return_mode="median") * 1e-3


def captured(call: Callable[[], object]) -> Callable[[], None]:
    """``call``, which runs once, as a CUDA graph."""
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay
