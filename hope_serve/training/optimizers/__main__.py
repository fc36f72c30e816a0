"""Trains every arm of the study for every seed at once and writes what came of it.

    python -m hope_serve.training.optimizers OUT --seconds 500
    python -m hope_serve.training.optimizers OUT --table

``OUT/results.json`` is written at every examination; a run that was stopped goes on where it was last saved.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from hope_serve.training.optimizers.arms import ARMS, model_of
from hope_serve.training.optimizers.language import TRAINED, draw_episodes
from hope_serve.training.optimizers.learner import Learner, rate_factor
from hope_serve.training.plans import Plan

COLUMNS = ("recall", "after_noise", "forgotten_in_noise", "after_lessons", "corrected", "memory_bytes", "adapt_ms")


class _Lessons(IterableDataset[list[list[Tensor]]]):
    """For every step one batch a seed, the same for all arms; drawn by seed and step alone."""

    def __init__(self, seeds: int, batch: int, first: int) -> None:
        self._seeds, self._batch, self._first = seeds, batch, first

    def __iter__(self) -> Iterator[list[list[Tensor]]]:
        info = get_worker_info()
        if info:
            torch.set_num_threads(1)
        for step in count(self._first + (info.id if info else 0), info.num_workers if info else 1):
            draws = (random.Random(f"{seed} {step}") for seed in range(self._seeds))  # noqa: S311
            yield [draw_episodes(plan_of(step), self._batch, draw).tensors() for draw in draws]


class Study:
    """All learners, by arm and seed, in lock-step.

    Args:
        out: the folder of ``results.json`` and of ``state.safetensors``.
    """

    def __init__(self, out: Path, *, seeds: int, device: str) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._out, self._seeds, self._device = out, seeds, device
        torch.set_float32_matmul_precision("high")
        self.learners = {
            (arm, seed): Learner(model_of(levels), seed=seed, device=device)
            for arm, levels in ARMS.items()
            for seed in range(seeds)
        }
        self.step, self.seconds = 0, 0.0
        if (out / "state.safetensors").exists():
            self._resume()

    def train(self, *, seconds: float, batch: int, workers: int, save_every: float) -> None:
        """Go on until ``seconds`` of training are done in all."""
        loader = DataLoader(_Lessons(self._seeds, batch, self.step), batch_size=None, num_workers=workers)
        shared: dict[str, list[list[Tensor]]] = {}
        begin, saved = time.monotonic() - self.seconds, time.monotonic()
        for drawn in loader:
            self.seconds = time.monotonic() - begin
            if self.seconds >= seconds:
                break
            plan = plan_of(self.step)
            shared[plan.name] = self._placed(drawn, shared.get(plan.name, []))
            for (_, seed), learner in self.learners.items():
                learner.step(plan, shared[plan.name][seed], rate_factor(self.step, self.seconds / seconds))
            self._wait()
            self.step += 1
            if self.step in (1, 10) or self.step % 100 == 0:
                answers = {
                    arm: round(one.losses()["answer"], 3) for (arm, seed), one in self.learners.items() if not seed
                }
                print(f"step {self.step}  {self.seconds:.0f} s  {answers}", flush=True)
            if time.monotonic() - saved > save_every:
                self.save()
                saved = time.monotonic()
        self.save()

    def examine(self, *, episodes: int) -> None:
        """Score every learner; the file is written after each of them."""
        results: dict[str, dict[str, dict[str, float]]] = {}
        for (arm, seed), learner in self.learners.items():
            results.setdefault(arm, {})[str(seed)] = learner.scores(episodes=episodes, seed=seed) | learner.losses()
            name = torch.cuda.get_device_name() if self._device == "cuda" else "cpu"
            record = {"step": self.step, "seconds": self.seconds, "device": name, "arms": results}
            (self._out / "results.json").write_text(json.dumps(record, indent=1))

    def save(self) -> None:
        """Everything a later call needs to go on from here."""
        named = {
            f"{arm}|{seed}|{name}": tensor.cpu().contiguous()
            for (arm, seed), learner in self.learners.items()
            for name, tensor in learner.tensors().items()
        }
        partial = self._out / "state.partial"
        save_file(named, partial)
        (self._out / "progress.json").write_text(json.dumps({"step": self.step, "seconds": self.seconds}))
        partial.replace(self._out / "state.safetensors")

    def _resume(self) -> None:
        named = load_file(self._out / "state.safetensors", device=self._device)
        for (arm, seed), learner in self.learners.items():
            start = f"{arm}|{seed}|"
            learner.load({name.removeprefix(start): t for name, t in named.items() if name.startswith(start)})
        at = json.loads((self._out / "progress.json").read_text())
        self.step, self.seconds = int(at["step"]), float(at["seconds"])

    def _placed(self, drawn: list[list[Tensor]], shared: list[list[Tensor]]) -> list[list[Tensor]]:
        """The batches on the device, in the very tensors that the captured graphs read."""
        if not shared:
            return [[t.to(self._device) for t in batch] for batch in drawn]
        for batch, kept in zip(drawn, shared, strict=True):
            for tensor, static in zip(batch, kept, strict=True):
                static.copy_(tensor, non_blocking=True)
        return shared

    def _wait(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()


def plan_of(step: int) -> Plan:
    """The plan of every learner's step."""
    return TRAINED[step % len(TRAINED)]


def table(results: dict[str, dict[str, dict[str, dict[str, float]]]]) -> str:
    """Markdown: the mean of every column over seeds, and the spread between the best and the worst of them."""
    lines = ["| arm | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for arm, seeds in results["arms"].items():
        cells = []
        for column in COLUMNS:
            values = [scores[column] for scores in seeds.values()]
            mean, spread = statistics.mean(values), max(values) - min(values)
            big = column in ("memory_bytes", "adapt_ms")
            cells.append(
                f"{mean:,.0f}" if column == "memory_bytes" else f"{mean:.1f}" if big else f"{mean:.3f} ({spread:.3f})"
            )
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m hope_serve.training.optimizers", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=500, help="of training, over all calls")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--episodes", type=int, default=256, help="of every exam")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--save-every", type=float, default=60)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--table", action="store_true", help="only print the table of OUT/results.json")
    given = parser.parse_args()
    if not given.table:
        study = Study(given.out, seeds=given.seeds, device=given.device)
        study.train(seconds=given.seconds, batch=given.batch, workers=given.workers, save_every=given.save_every)
        study.examine(episodes=given.episodes)
    print(table(json.loads((given.out / "results.json").read_text())))


if __name__ == "__main__":
    main()
