"""What every suite is: a set of options that runs against a server and reports."""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol

from hope_serve.evals.report import Report
from hope_serve.evals.subject import Subject


class Suite(Protocol):
    """A frozen set of options. ``name`` names its files."""

    @property
    def name(self) -> str:
        """As the command line calls it."""

    async def run(self, subject: Subject, source: Subject | None) -> Report:
        """Everything it measures. source: a server of the source model, where the suite has a use for one."""


def on_what(subject: Subject) -> dict[str, Any]:
    """The model, as a report names it."""
    model = subject.model
    return {
        "name": model.name,
        "fingerprint": model.fingerprint,
        "parameters": model.num_parameters,
        "memory_bytes": model.memory_bytes,
        "dtype": model.dtype,
        "device": model.device,
    }


def failures_of(subject: Subject, source: Subject | None = None) -> tuple[str, ...]:
    """What servers refused, each kind of refusal once: what for, why, how often."""
    errors = [*subject.errors, *(source.errors if source else ())]
    counted = Counter(f"{stage}: {error}" for stage, error in errors)
    return tuple(text if times == 1 else f"{text} ({times} times)" for text, times in counted.items())
