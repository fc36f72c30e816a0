"""How far an evaluation is, on standard error: one bar a stage, or where nobody watches one line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Bars:
    """Progress bars that stay when their stage is done; without a terminal, what each stage took."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description:>30}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @contextmanager
    def stage(self, name: str, steps: int) -> Iterator[Callable[[], None]]:
        """A bar of ``steps``; call what is yielded after each."""
        began = time.monotonic()
        task = self._progress.add_task(name, total=steps)
        yield lambda: self._progress.advance(task)
        if not self._console.is_terminal:
            self._console.print(f"{name}: {steps} in {time.monotonic() - began:.1f} s", markup=False, soft_wrap=True)
