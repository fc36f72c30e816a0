"""Meta-training of a memory part: ``python -m hope_serve.training.parts.train --base BASE --text DIR --out FILE``.

It resumes from its state file, saves the part every minute, and ends with a table of what held-out people get.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
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
from hope_serve.convert.source import Source, read_weights
from hope_serve.model.attention import (
    PLAIN,
    AttentionShape,
    AttentionWeights,
    Pointwise,
    layer_forward,
    layer_gradient,
    layer_read,
)
from hope_serve.model.attention_learn import LayerFunctions
from hope_serve.model.parts import MemoryPart, expected_shapes, load_part, save_part, with_start
from hope_serve.training.parts.batches import Batch, StreamConfig, bucket_order, loader
from hope_serve.training.parts.evaluate import Evaluation, Sizes
from hope_serve.training.parts.general import general_rows
from hope_serve.training.parts.loss import Guard, batch_loss
from hope_serve.training.parts.memory import Learner
from hope_serve.training.parts.packing import Bucket
from hope_serve.training.parts.speech import Speech

CHUNK_TOKENS = 256
BUCKETS = (
    Bucket(name="short", users=96, chunks=1, chunk_tokens=64, learned_chunks=1, ask_tokens=192, other_tokens=48, facts=(1, 3)),
    Bucket(name="half", users=56, chunks=1, chunk_tokens=128, learned_chunks=1, ask_tokens=288, other_tokens=80, facts=(2, 7)),
    Bucket(name="chunk", users=32, chunks=1, chunk_tokens=256, learned_chunks=1, ask_tokens=448, other_tokens=128, facts=(3, 14)),
    Bucket(name="two", users=18, chunks=2, chunk_tokens=256, learned_chunks=2, ask_tokens=576, other_tokens=192, facts=(4, 28)),
    Bucket(name="four", users=10, chunks=4, chunk_tokens=256, learned_chunks=4, ask_tokens=768, other_tokens=256, facts=(8, 64)),
    Bucket(name="later", users=18, chunks=8, chunk_tokens=256, learned_chunks=1, ask_tokens=448, other_tokens=192, facts=(3, 14)),
)  # fmt: skip
TIMES = (2, 2, 3, 2, 2, 1)
"""How often each bucket comes among twelve batches."""
PARTS = ("answer", "first", "kl empty", "kl strange", "norm")
PEAK_FLOPS = 989e12


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
        self.functions = compiled() if options.compile else LayerFunctions()
        self._pieces = {bucket.name: 1 for bucket in BUCKETS}
        self._resume()

    def train(self) -> None:
        """Run until the schedule or this call's time ends."""
        options, started = self.options, time.monotonic()
        buckets = {bucket.name: bucket for bucket in shrunk(BUCKETS, options.users_divisor)}
        plain = dataclasses.replace(self.learner(start=False), functions=LayerFunctions())
        general = general_rows(plain, self.speech, rows=options.general_rows, tokens=192)
        stream = self._stream(tuple(buckets.values()))
        start, saved, counted = time.monotonic() - self.seconds, time.monotonic(), time.monotonic()
        sums, flops = torch.zeros(len(PARTS), device=self.device), 0.0
        while self.progress < 1 and time.monotonic() - started < options.stop_after:
            for _ in range(options.batches_a_step):
                batch = moved(next(stream), self.device)
                sums += self._learn(batch, buckets[batch.bucket], general) / options.batches_a_step
                flops += batch_flops(self.shape, buckets[batch.bucket])
            norm = self._apply()
            self.seconds = time.monotonic() - start
            if self.step % options.log_every == 0:
                now = time.monotonic()
                self._print(sums / options.log_every, norm, flops / (now - counted), now - counted)
                sums.zero_()
                flops, counted = 0.0, now
            if time.monotonic() - saved > options.save_every:
                self.save(state=True)
                saved = time.monotonic()
        self.save(state=True)

    @property
    def progress(self) -> float:
        """How much of the run is done, 0 to 1."""
        return max(self.seconds / self.options.seconds, self.step / self.options.steps)

    def learner(self, *, start: bool = True) -> Learner:
        """The base with the part as it stands, or the base alone."""
        weights = with_start(self.base, self.part) if start else self.base
        return Learner(shape=self.shape, weights=weights, part=self.part, functions=self.functions)

    def evaluate(self) -> dict[str, float]:
        """What held-out people get; printed and returned."""
        with torch.no_grad():
            learner = dataclasses.replace(self.learner(), functions=LayerFunctions())
            plain = Learner(shape=self.shape, weights=self.base, part=self.part, functions=LayerFunctions())
            sizes = Sizes.scaled(self.options.evaluate_scale)
            table = {}
            for name, value in Evaluation(learner, plain, self.speech, self.options.text, sizes=sizes).run():
                print(f"{name:44} {value:.4f}", flush=True)
                table[name] = value
        return table

    def save(self, *, state: bool = False) -> None:
        """The part, and (``state``) everything a later call needs to go on from here."""
        path = self.options.out
        path.parent.mkdir(parents=True, exist_ok=True)
        part = MemoryPart(
            tensors=MappingProxyType(self.part), base=self.source.identity.fingerprint, chunk_size=CHUNK_TOKENS
        )
        save_part(path, part, {"step": str(self.step), "seconds": f"{self.seconds:.0f}", "of": self.source.identity.name})
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

    def _learn(self, batch: Batch, bucket: Bucket, general: Tensor | None) -> Tensor:
        """Add the batch's gradient; a batch that the device cannot hold is taken in halves from then on."""
        try:
            total = torch.zeros(len(PARTS), device=self.device)
            for piece in pieces(batch, self._pieces[bucket.name]):
                loss, parts = batch_loss(
                    self.learner(), self.base, piece, bucket, general, Guard(weight=self.options.guard)
                )
                share = len(piece.taught) / len(batch.taught)
                (loss * share / self.options.batches_a_step).backward()  # type: ignore[no-untyped-call]
                total += parts * share
            return total
        except torch.OutOfMemoryError:
            if self._pieces[bucket.name] >= len(batch.taught):
                raise
            self._pieces[bucket.name] *= 2
            print(f"bucket {bucket.name} does not fit; from here on in {self._pieces[bucket.name]} pieces", flush=True)
        torch.cuda.empty_cache()
        return self._learn(batch, bucket, general)

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
        if torch.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return float(norm)

    def _print(self, parts: Tensor, norm: float, flops_a_second: float, seconds: float) -> None:
        values = "  ".join(f"{name} {value:.4f}" for name, value in zip(PARTS, parts.tolist(), strict=True))
        rate = float(self.part["log_rate"].detach().exp().mean())
        decay = float(torch.sigmoid(self.part["decay_logit"].detach()).mean())
        per_step = seconds / self.options.log_every
        print(
            f"step {self.step}  {self.seconds:.0f} s  {values}  gradient {norm:.2f}  rate {rate:.4f}  decay {decay:.4f}  "
            f"{per_step:.2f} s/step  {flops_a_second / 1e12:.0f} TFLOP/s ({flops_a_second / PEAK_FLOPS:.1%} of peak)",
            flush=True,
        )


def new_part(shape: AttentionShape, *, rank: int, start_rank: int, seed: int) -> dict[str, Tensor]:
    """A part that has learned nothing: orthonormal projections, a start that changes nothing."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, size in expected_shapes(shape, rank=rank, start_rank=start_rank).items():
        tensors[name] = torch.zeros(size)
        if name.endswith(".inner"):
            tensors[name] = torch.randn(size, generator=generator) / math.sqrt(size[-1])
    drawn = torch.randn(shape.num_layers, shape.wide_size, rank, generator=generator)
    tensors["projection"] = torch.linalg.qr(drawn)[0].mT.contiguous()
    tensors["log_rate"] += math.log(0.02)
    tensors["decay_logit"] += math.log(0.995 / 0.005)
    tensors["token_weight.bias"] -= math.log(3.0)  # a weight of 1
    return tensors


def make_optimizer(part: dict[str, Tensor], *, scale: float) -> torch.optim.AdamW:
    """AdamW over the rates, the projections and the start, each at its own pace."""
    groups = (
        ([t for n, t in part.items() if t.dim() == 1], 1e-2),
        ([part["projection"]], 1e-3),
        ([t for n, t in part.items() if n.startswith("start.")], 4e-4),
    )
    settings = [{"params": tensors, "lr": rate * scale, "base": rate * scale} for tensors, rate in groups]
    return torch.optim.AdamW(settings, betas=(0.9, 0.98), weight_decay=0.0, fused=part["projection"].is_cuda)


def compiled() -> LayerFunctions:
    """The passes through a layer with their element-wise parts fused, whatever the sizes."""
    torch._dynamo.config.recompile_limit = 64
    ops = Pointwise(*(torch.compile(function, dynamic=True) for function in PLAIN))
    passes = (functools.partial(one, ops=ops) for one in (layer_forward, layer_gradient, layer_read))
    return LayerFunctions(*passes)


def on_device(weights: AttentionWeights, device: str, dtype: torch.dtype) -> AttentionWeights:
    """Weights moved and cast; a tied head stays tied."""
    layers = weights.layers._replace(
        **{name: t.to(device, dtype) for name, t in weights.layers._asdict().items() if t is not None}
    )
    embedding = weights.embedding.to(device, dtype)
    tied = weights.head is weights.embedding
    head = embedding if tied else weights.head.to(device, dtype)
    return AttentionWeights(embedding, head, weights.norm.to(device, dtype), layers)


def moved(batch: Batch, device: str) -> Batch:
    """The batch's tensors on the device."""
    return Batch(
        bucket=batch.bucket,
        told=type(batch.told)(*(t.to(device, non_blocking=True) for t in batch.told)),
        taught=batch.taught.to(device, non_blocking=True),
        asked=type(batch.asked)(*(t.to(device, non_blocking=True) for t in batch.asked)),
        other=batch.other.to(device, non_blocking=True),
    )


def pieces(batch: Batch, count: int) -> list[Batch]:
    """The batch's users in ``count`` groups."""
    size = -(-len(batch.taught) // count)
    return [
        Batch(
            bucket=batch.bucket,
            told=type(batch.told)(*(t[at : at + size] for t in batch.told)),
            taught=batch.taught[at : at + size],
            asked=type(batch.asked)(*(t[at : at + size] for t in batch.asked)),
            other=batch.other[at : at + size],
        )
        for at in range(0, len(batch.taught), size)
    ]


def batch_flops(shape: AttentionShape, bucket: Bucket) -> float:
    """Floating point operations of the weights' products in one batch, without those of attention or of padding."""
    chunk = bucket.users * bucket.chunk_tokens
    told = chunk * (6 * bucket.learned_chunks + 2 * (bucket.chunks - bucket.learned_chunks))
    return 2.0 * shape.num_weights * (told + bucket.users * (3 * bucket.ask_tokens + 4 * bucket.other_tokens))


def shrunk(buckets: tuple[Bucket, ...], divisor: int) -> tuple[Bucket, ...]:
    """The same buckets with fewer users, for smaller devices."""
    names = ("name", "chunks", "chunk_tokens", "learned_chunks", "ask_tokens", "other_tokens", "facts", "past_chunks")
    return tuple(
        Bucket(users=max(2, bucket.users // divisor), **{name: getattr(bucket, name) for name in names})
        for bucket in buckets
    )


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--base", type=Path, required=True, help="GGUF file or folder of the frozen base")
    parser.add_argument("--text", type=Path, required=True, help="folder of *_train.txt and *_test.txt")
    parser.add_argument("--out", type=Path, required=True, help="the part; its state is kept beside it")
    parser.add_argument("--start-from", type=Path, help="a part to go on from, with a fresh optimizer")
    parser.add_argument("--seconds", type=float, default=1200, help="length of the whole schedule")
    parser.add_argument("--steps", type=int, default=10**9, help="the schedule's end in steps, if that comes first")
    parser.add_argument("--stop-after", type=float, default=1e9, help="seconds after which this call saves and ends")
    parser.add_argument("--save-every", type=float, default=60, help="seconds between saves of the part")
    parser.add_argument("--log-every", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=60)
    parser.add_argument("--batches-a-step", type=int, default=2)
    parser.add_argument("--users-divisor", type=int, default=1)
    parser.add_argument("--general-rows", type=int, default=384)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--start-rank", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1.0, help="scale of all learning rates")
    parser.add_argument("--guard", type=float, default=3.0, help="weight of the KL to the base")
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="fuse pointwise operations (needs a C compiler)")
    parser.add_argument("--evaluate", action="store_true", help="print the table at the end of this call")
    parser.add_argument("--evaluate-scale", type=float, default=1.0, help="share of the held-out people asked")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Train, save and evaluate."""
    options = parse(arguments)
    trainer = Trainer(options)
    trainer.train()
    if options.evaluate or trainer.progress >= 1:
        table = trainer.evaluate()
        options.out.with_suffix(".json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
