"""Meta-training of a memory part: ``python -m hope_serve.training.parts.train --base BASE --text DIR --out FILE``.

It resumes from its state file, saves the part every minute, and ends with a table of what held-out people get.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hope_serve.convert.read import read_source
from hope_serve.convert.source import read_weights
from hope_serve.model.attention_learn import LayerFunctions, as_many_tokens
from hope_serve.model.parts import MemoryPart, load_part, save_part, with_start
from hope_serve.training.parts.batches import Batch, BatchMaker, StreamConfig, bucket_order, loader, moved
from hope_serve.training.parts.buckets import BUCKETS, CHUNK_TOKENS, TIMES, shrunk
from hope_serve.training.parts.evaluate import Evaluation
from hope_serve.training.parts.general import general_rows
from hope_serve.training.parts.gradients import Gradients
from hope_serve.training.parts.loss import Guard
from hope_serve.training.parts.memory import Learner
from hope_serve.training.parts.options import parse
from hope_serve.training.parts.packing import Bucket
from hope_serve.training.parts.profiling import profiled
from hope_serve.training.parts.progress import Progress
from hope_serve.training.parts.setup import compiled, make_optimizer, new_part, on_device
from hope_serve.training.parts.speech import Speech
from hope_serve.training.parts.steadiness import Steadiness


class Trainer:
    """One run: a base, a part, an optimizer and a clock."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        torch.manual_seed(options.seed)
        torch.set_float32_matmul_precision("high")
        self.device = options.device
        self.dtype = torch.bfloat16 if self.device == "cuda" else torch.float32
        self.source = read_source(options.base)
        self.shape = self.source.architecture.shape
        self.base = on_device(read_weights(self.source), self.device, self.dtype)
        self.speech = Speech(self.source.dialogue)
        self.part = {n: t.to(self.device).requires_grad_() for n, t in self._first_part().items()}
        self.optimizer = make_optimizer(self.part, scale=options.rate)
        self.step, self.seconds = 0, 0.0
        self.steadiness = Steadiness()
        self._resume()

    def train(self) -> None:
        """Run until the schedule or this call's time ends."""
        options, started = self.options, time.monotonic()
        if self.progress >= 1:
            return
        buckets = {bucket.name: bucket for bucket in shrunk(BUCKETS, options.users_divisor)}
        gradients = self._gradients(self._general(), self._functions(), graphs=options.graphs)
        stream = self._stream(tuple(buckets.values()))
        start, saved = time.monotonic() - self.seconds, time.monotonic()
        meter = Progress(options.out.parent, self.shape, self.device)
        while self.progress < 1 and time.monotonic() - started < options.stop_after:
            for _ in range(options.batches_a_step):
                batch = moved(next(stream), self.device)
                bucket = buckets[batch.bucket]
                meter.add(gradients.add(batch, bucket) / options.batches_a_step, bucket)
            norm = self._apply()
            self.seconds = time.monotonic() - start
            if meter.end_step() == options.log_every:
                said = self._rates() | {"gradient": norm, "left out": float(self.steadiness.left_out)}
                print(meter.line(self.step, self.seconds, said), flush=True)
            if time.monotonic() - saved > options.save_every:
                self.save(state=True)
                saved = time.monotonic()
        self.save(state=True)

    @property
    def progress(self) -> float:
        """How much of the run is done, 0 to 1."""
        return float(max(self.seconds / self.options.seconds, self.step / self.options.steps))

    def learner(self, functions: LayerFunctions, *, start: bool = True) -> Learner:
        """The base with the part as it stands, or the base alone."""
        weights = with_start(self.base, self.part) if start else self.base
        return Learner(shape=self.shape, weights=weights, part=self.part, functions=functions)

    def evaluate(self) -> dict[str, float]:
        """What held-out people get; printed and returned."""
        with torch.no_grad():
            learner = self.learner(LayerFunctions())
            plain = self.learner(LayerFunctions(), start=False)
            scale, table = self.options.evaluate_scale, {}
            for name, value in Evaluation(learner, plain, self.speech, self.options.text, scale=scale).run():
                print(f"{name:44} {value:.4f}", flush=True)
                table[name] = value
        return table

    def save(self, *, state: bool = False) -> None:
        """The part, and (``state``) everything a later call needs to go on from here."""
        path = self.options.out
        path.parent.mkdir(parents=True, exist_ok=True)
        part = MemoryPart(
            tensors=MappingProxyType(self.part),
            base=self.source.identity.fingerprint,
            chunk_size=CHUNK_TOKENS,
            closes_with_lesson=True,
        )
        save_part(
            path, part, {"step": str(self.step), "seconds": f"{self.seconds:.0f}", "of": self.source.identity.name}
        )
        if not state:
            return
        tensors = {f"part.{name}": t for name, t in self.part.items()}
        names = {id(t): name for name, t in self.part.items()}
        for tensor, slots in self.optimizer.state.items():
            tensors |= {f"{slot}.{names[id(tensor)]}": t for slot, t in slots.items()}
        meta = {"step": str(self.step), "seconds": str(self.seconds)}
        save_file({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, self._state_path, metadata=meta)

    @property
    def _state_path(self) -> Path:
        return Path(f"{self.options.out}.state")

    def _first_part(self) -> dict[str, Tensor]:
        options = self.options
        if options.start_from:
            return dict(load_part(options.start_from, self.shape, base=self.source.identity.fingerprint).tensors)
        return new_part(self.shape, rank=options.rank, start_rank=options.start_rank, seed=options.seed)

    def _resume(self) -> None:
        if not self._state_path.exists():
            return
        with safe_open(self._state_path, framework="pt", device=self.device) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (a file, not a mapping)
            meta = file.metadata()
        for name, tensor in self.part.items():
            tensor.data.copy_(tensors[f"part.{name}"])
            if f"step.{name}" in tensors:
                self.optimizer.state[tensor] = {s: tensors[f"{s}.{name}"] for s in ("step", "exp_avg", "exp_avg_sq")}
        self.step, self.seconds = int(meta["step"]), float(meta["seconds"])
        print(f"resumed at step {self.step}, {self.seconds:.0f} s", flush=True)

    def profile(self, steps: int) -> None:
        """Print what a batch of every bucket takes, and its kernels; nothing is learned."""
        options, general = self.options, self._general()
        functions = self._functions()._replace(counted=as_many_tokens)  # as captured batches have it
        timed = self._gradients(general, functions, graphs=options.graphs)
        shown = self._gradients(general, functions, graphs=False)
        maker = BatchMaker(self.source.dialogue, options.text, seed=options.seed)
        buckets = shrunk(BUCKETS, options.users_divisor)
        batches = ((moved(maker.batch(bucket), self.device), bucket) for bucket in buckets)
        for line in profiled(batches, self.shape, timed.add, shown.add, steps=steps):
            print(line, flush=True)

    def _general(self) -> Tensor | None:
        plain = self.learner(LayerFunctions(), start=False)
        return general_rows(plain, self.speech, rows=self.options.general_rows, tokens=192)

    def _functions(self) -> LayerFunctions:
        return compiled() if self.options.compile else LayerFunctions()

    def _gradients(self, general: Tensor | None, functions: LayerFunctions, *, graphs: bool) -> Gradients:
        options = self.options
        return Gradients(
            self.learner,
            self.base,
            general,
            Guard(empty=options.guard, strange=options.guard_strange),
            share=1 / options.batches_a_step,
            functions=functions,
            graphed=graphs and self.device == "cuda",
            learned=self.part.values(),
        )

    def _stream(self, buckets: tuple[Bucket, ...]) -> Iterator[Batch]:
        options = self.options
        config = StreamConfig(
            dialogue=self.source.dialogue,
            text=options.text,
            buckets=buckets,
            order=bucket_order(buckets, TIMES),
            seed=options.seed,
            first=self.step * options.batches_a_step,
        )
        return loader(config, workers=options.workers, pin=self.device == "cuda")

    def _apply(self) -> float:
        warm, done = min(1.0, (self.step + 1) / self.options.warmup), min(1.0, self.progress)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * warm * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * done)))
        norm = nn.utils.clip_grad_norm_(list(self.part.values()), 1.0)
        if self.steadiness.takes(float(norm)):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)
        self.step += 1
        return float(norm)

    def _rates(self) -> dict[str, float]:
        """The step size and what an update retains, the mean of all layers."""
        part = {name: self.part[name].detach() for name in ("log_rate", "decay_logit")}
        return {
            "rate": float(part["log_rate"].exp().mean()),
            "decay": float(torch.sigmoid(part["decay_logit"]).mean()),
        }


def run(options: argparse.Namespace) -> Path:
    """Train, save and evaluate, or only profile; the part's path. An interrupted run goes on where it was saved."""
    trainer = Trainer(options)
    if options.profile_steps:
        trainer.profile(options.profile_steps)
        return Path(options.out)
    trainer.train()
    if options.evaluate or trainer.progress >= 1:
        table = trainer.evaluate()
        options.out.with_suffix(".json").write_text(json.dumps(table, indent=1) + "\n")
    return Path(options.out)


if __name__ == "__main__":
    run(parse())
