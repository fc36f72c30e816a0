"""Meta-training of a checkpoint: resumable, with a progress bar, and a plot at the end."""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hope_serve.model.checkpoint import load_checkpoint, save_checkpoint
from hope_serve.model.hope import HopeModel
from hope_serve.tokenizer import Tokenizer
from hope_serve.training.card import model_card
from hope_serve.training.config import ScheduleConfig, TrainConfig
from hope_serve.training.evaluate import held_out_recall, text_bits_per_byte
from hope_serve.training.outer import make_outer, restore_slots, slots_of
from hope_serve.training.reading_scores import WINDOW, logits_of, reading_scores
from hope_serve.training.run_log import RunLog
from hope_serve.training.step import PARTS, GradientStep
from hope_serve.training.stream import BatchStream
from hope_serve.training.text import tokenize_files


def run(path: Path) -> Path:
    """Train as ``path`` says and return the checkpoint's folder; an interrupted run goes on where it was saved.

    Raises:
        ValueError: the configuration names an unknown key or a value that is not allowed.
    """
    trainer = Trainer(TrainConfig.load(path))
    trainer.train()
    return trainer.finish()


class Trainer:
    """One run's model, optimizer, data and clock."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.log = RunLog(config.output)
        torch.manual_seed(config.seed)
        # TF32 halves the time of the dense products; measured recall does not tell them apart.
        torch.set_float32_matmul_precision("high")
        device = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = Tokenizer.load(config.data.tokenizer)
        if self.tokenizer.vocab_size != config.model.vocab_size:
            raise ValueError(
                f"model.vocab_size is {config.model.vocab_size}, but {config.data.tokenizer} has "
                f"{self.tokenizer.vocab_size} tokens; make them equal"
            )
        self.model = self._initial_model().to(device).requires_grad_()
        self.optimizers = make_outer(self.model, config.schedule)
        data = config.data
        self._valid = tokenize_files(self.tokenizer, data.valid, cache=data.cache)
        self.step, self.seconds = 0, 0.0
        self._state_path = config.output / "state.safetensors"
        if self._state_path.exists():
            self._resume()

    def train(self) -> None:
        """Run until the schedule ends."""
        config, schedule = self.config, self.config.schedule
        ids = tokenize_files(self.tokenizer, config.data.train, cache=config.data.cache)
        stream = BatchStream(config, ids, first=self.step, progress=self.progress)
        capture = config.cuda_graphs and self.model.embedding.is_cuda
        dtype = torch.bfloat16 if config.read_dtype == "bfloat16" else torch.float32
        gradient = GradientStep(self.model, config.loss, capture=capture, read_dtype=dtype)
        total = torch.zeros(len(PARTS), 2, device=self.model.embedding.device)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        start = time.monotonic() - self.seconds
        saved = time.monotonic()
        with Progress(*columns) as progress:
            task = progress.add_task("training", total=1.0)
            for batch in stream:
                self.seconds = time.monotonic() - start
                if self.progress >= 1:
                    break
                stream.advance(self.progress)
                unknown = float(self.progress >= schedule.unknown_from)
                _add(total, gradient(batch, unknown=unknown))
                self._apply(schedule)
                if self.step % schedule.log_every == 0:
                    line = self._record(total)
                    progress.update(task, completed=self.progress, description=line)
                if self.step % schedule.evaluate_every == 0:
                    self.evaluate()
                    self.save()
                if time.monotonic() - saved > schedule.save_seconds:
                    self.save()
                    self._save_checkpoint({})
                    saved = time.monotonic()
        self.save()

    @property
    def progress(self) -> float:
        """How much of the run is done, 0 to 1."""
        schedule = self.config.schedule
        return max(self.seconds / schedule.seconds, self.step / schedule.steps)

    def evaluate(self) -> dict[str, float]:
        """Recall on held-out people, and bits per byte on the validation text."""
        scores = held_out_recall(
            self.model, self.tokenizer, self._valid, episodes=self.config.schedule.evaluate_episodes
        )
        scores["valid_bits_per_byte"] = text_bits_per_byte(self.model, self.tokenizer, self._valid)
        if len(self._valid) > WINDOW + 1:
            device = self.model.embedding.device
            scores |= reading_scores(logits_of(self.model), self.tokenizer, self._valid, device)
        record = {"step": float(self.step), "seconds": self.seconds} | scores
        self.log.write(record)
        print("  ".join(f"{k} {v:.3f}" for k, v in record.items()), flush=True)
        return scores

    def finish(self) -> Path:
        """Write the checkpoint, its card and the plot."""
        self._save_checkpoint({})
        folder = self._save_checkpoint(self.evaluate())
        self.log.plot()
        return folder

    def save(self) -> None:
        """Everything a later run needs to go on from here, without pickles."""
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        tensors |= slots_of(self.optimizers, self.model)
        meta = {"step": str(self.step), "seconds": str(self.seconds)}
        partial = self._state_path.with_suffix(".partial")
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, partial, metadata=meta)
        partial.replace(self._state_path)

    def _save_checkpoint(self, scores: dict[str, float]) -> Path:
        folder = self.config.output / self.config.model.name
        tokenizer = self.config.data.tokenizer.read_bytes()
        save_checkpoint(folder, self.model, tokenizer=tokenizer, card=model_card(self.config, self.step, scores))
        return folder

    def _resume(self) -> None:
        with safe_open(self._state_path, framework="pt", device=str(self.model.embedding.device)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (a file, not a mapping)
            meta = file.metadata()
        try:
            self.model.load_state_dict(
                {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
            )
        except RuntimeError as error:
            raise ValueError(
                f"output: {self._state_path} is of a run with another model; choose another folder, or remove it"
            ) from error
        restore_slots(self.optimizers, self.model, tensors)
        self.step, self.seconds = int(meta["step"]), float(meta["seconds"])

    def _initial_model(self) -> HopeModel:
        if self.config.start_from is None:
            return HopeModel(self.config.model)
        model = HopeModel(self.config.model)
        model.load_state_dict(load_checkpoint(self.config.start_from).model.state_dict())
        if self.config.start_eta:
            _set_eta(model, self.config.start_eta)
        return model

    def _apply(self, schedule: ScheduleConfig) -> None:
        factor = learning_factor(schedule, self.step, self.progress)
        nn.utils.clip_grad_norm_(self.model.parameters(), schedule.clip_norm)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * factor
            optimizer.step()
        self.step += 1

    def _record(self, total: Tensor) -> str:
        sums, counts = total.T.tolist()
        total.zero_()
        means = {name: s / c for name, s, c in zip(PARTS, sums, counts, strict=True) if c}
        self.log.write({"step": float(self.step), "seconds": self.seconds} | means)
        return f"step {self.step} " + " ".join(f"{name} {value:.3f}" for name, value in means.items())


def learning_factor(schedule: ScheduleConfig, step: int, progress: float) -> float:
    """Linear warm-up by steps, then a cosine by progress down to ``final_share``."""
    warm = min(1.0, (step + 1) / schedule.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return warm * (schedule.final_share + (1 - schedule.final_share) * cosine)


def _set_eta(model: HopeModel, eta: float) -> None:
    """Let a neutral token write with ``eta``: from a small one, a run of an hour does not get to a large one."""
    with torch.no_grad():
        for block in model.blocks:
            block.titans.gate_bias[:, 0] = math.log(eta / (model.config.titans.eta_max - eta))


def _add(total: Tensor, parts: Tensor) -> None:
    """Sums and counts of the parts that a batch had."""
    present = torch.isfinite(parts)
    total[:, 0] += torch.where(present, parts, 0.0)
    total[:, 1] += present
