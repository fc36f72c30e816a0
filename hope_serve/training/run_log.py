"""What a run did, step by step: a JSON-lines file, a progress line, a plot at the end."""

from __future__ import annotations

from pathlib import Path

import msgspec


class RunLog:
    """Appends records to ``log.jsonl`` and draws ``loss.png`` from them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._plot = folder / "log.jsonl", folder / "loss.png"

    def write(self, record: dict[str, float]) -> None:
        """One record; ``step`` and ``seconds`` are expected in each."""
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(record) + b"\n")

    def records(self) -> list[dict[str, float]]:
        """All records so far."""
        if not self._path.exists():
            return []
        return [msgspec.json.decode(line, type=dict[str, float]) for line in self._path.read_bytes().splitlines()]

    def plot(self) -> Path:
        """Losses above, recall below, over steps."""
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot

        records = self.records()
        figure, axes = pyplot.subplots(2, 1, sharex=True, figsize=(9, 7))
        names = sorted({name for record in records for name in record} - {"step", "seconds", "learning_rate"})
        for name in names:
            points = [(r["step"], r[name]) for r in records if name in r]
            axes[1 if name.startswith("recall") else 0].plot(*zip(*points, strict=True), label=name)
        for axis, label in zip(axes, ("nats per token, bits per byte", "recall"), strict=True):
            axis.set_ylabel(label)
            axis.grid(alpha=0.3)
            if axis.has_data():
                axis.legend(fontsize="small")
        axes[1].set_xlabel("step")
        figure.savefig(self._plot, dpi=110, bbox_inches="tight")
        pyplot.close(figure)
        return self._plot
