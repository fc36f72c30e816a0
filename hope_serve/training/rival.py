"""A Transformer of a HOPE model's size, trained beside it on the same text for as long: what attention does with both.

python -m hope_serve.training.rival RUN.toml --seconds 780 --out FOLDER
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hope_serve.model.config import HopeConfig
from hope_serve.model.hope import HopeModel, RmsNorm
from hope_serve.tokenizer import Tokenizer
from hope_serve.training.config import TrainConfig
from hope_serve.training.reading_scores import reading_scores
from hope_serve.training.stream import BatchStream
from hope_serve.training.text import tokenize_files
from hope_serve.training.train import learning_factor

ROTARY_BASE = 10_000.0
SAVE_EVERY = 60.0
WEIGHTS, CONFIG, PROGRESS, TOKENIZER = "transformer.safetensors", "config.json", "progress.json", "tokenizer.json"


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Sizes. row_tokens: of the rows that it is trained on; 0 while that is not known."""

    vocab_size: int
    width: int
    wide: int
    num_layers: int
    num_heads: int
    row_tokens: int = 0


class Transformer(nn.Module):
    """Blocks of causal attention with rotary positions and an MLP; the embedding is tied."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.embedding = nn.Parameter(torch.randn(config.vocab_size, width) / width**0.5)
        self._head_size = width // config.num_heads
        blocks = (_Block(width, config.wide, config.num_heads) for _ in range(config.num_layers))
        self.blocks: Sequence[_Block] = nn.ModuleList(blocks)  # type: ignore[assignment]
        self.norm = RmsNorm(width, 1e-6)

    @classmethod
    def of_equal_size(cls, config: HopeConfig, *, row_tokens: int = 0) -> Transformer:
        """As wide, as deep and with as many heads as a HOPE model; its MLPs take what parameters are left."""
        with torch.device("meta"):
            total = sum(p.numel() for p in HopeModel(config).parameters())
        width, layers = config.hidden_size, config.num_layers
        rest = (total - width * (config.vocab_size + 1)) // layers - 4 * width**2 - 2 * width
        sizes = TransformerConfig(
            vocab_size=config.vocab_size,
            width=width,
            wide=rest // (2 * width),
            num_layers=layers,
            num_heads=config.titans.num_heads,
            row_tokens=row_tokens,
        )
        return cls(sizes)

    def forward(self, rows: Tensor) -> Tensor:
        """Ids [B, T] to next-token logits [B, T, V]."""
        return F.linear(self.hidden(rows), self.embedding)

    def hidden(self, rows: Tensor) -> Tensor:
        """Ids [B, T] to vectors [B, T, d]."""
        h = F.embedding(rows, self.embedding)
        angles = _angles(rows.shape[1], self._head_size, rows.device)
        for block in self.blocks:
            h = block(h, angles)
        normed: Tensor = self.norm(h)
        return normed


class _Block(nn.Module):
    def __init__(self, width: int, wide: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_size = num_heads, width // num_heads
        self.norm, self.mlp_norm = RmsNorm(width, 1e-6), RmsNorm(width, 1e-6)
        self.joint, self.output = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.inner, self.outer = nn.Linear(width, wide, bias=False), nn.Linear(wide, width, bias=False)

    def forward(self, h: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        """h: [B, T, d]."""
        joint = self.joint(self.norm(h)).unflatten(-1, (3, self.num_heads, self.head_size)).permute(2, 0, 3, 1, 4)
        q, k, v = _rotated(joint[0], angles), _rotated(joint[1], angles), joint[2]
        mixed = F.scaled_dot_product_attention(q, k, v.to(q.dtype), is_causal=True)
        h = h + self.output(mixed.transpose(1, 2).flatten(2))
        out: Tensor = h + self.outer(F.silu(self.inner(self.mlp_norm(h))))
        return out


def _angles(tokens: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    rates = ROTARY_BASE ** -(torch.arange(0, size, 2, device=device) / size)
    turns = torch.arange(tokens, device=device)[:, None] * rates
    return turns.cos(), turns.sin()


def _rotated(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = (a.to(x.dtype) for a in angles)
    one, other = x.chunk(2, -1)
    return torch.cat([one * cos - other * sin, other * cos + one * sin], -1)


def train(config: TrainConfig, *, seconds: float, rate: float, out: Path) -> Path:
    """Train on the run's text stream, episodes left out; ends with ``scores.json`` beside weights, sizes and tokenizer.

    What an earlier call saved there is gone on with, its optimizer fresh.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    torch.set_float32_matmul_precision("high")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = Tokenizer.load(config.data.tokenizer)
    model = Transformer.of_equal_size(config.model, row_tokens=config.batch.text_tokens).to(device)
    (out / CONFIG).write_text(json.dumps(asdict(model.config), indent=1) + "\n")
    shutil.copyfile(config.data.tokenizer, out / TOKENIZER)
    kept, at = out / WEIGHTS, {"step": 0, "tokens": 0, "seconds": 0.0}
    if kept.exists():
        model.load_state_dict(load_file(kept, device=device))
        at = json.loads((out / PROGRESS).read_text())
    optimizer = torch.optim.AdamW(
        model.parameters(), rate, betas=(0.9, 0.98), weight_decay=config.schedule.weight_decay, fused=device == "cuda"
    )
    ids = tokenize_files(tokenizer, config.data.train, cache=config.data.cache)
    valid = tokenize_files(tokenizer, config.data.valid, cache=config.data.cache)
    begin = time.monotonic() - at["seconds"]
    saved = time.monotonic()
    for batch in BatchStream(config, ids, first=int(at["step"]), progress=1.0, text_alone=True):
        at["seconds"] = time.monotonic() - begin
        if at["seconds"] >= seconds:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate * learning_factor(config.schedule, int(at["step"]), at["seconds"] / seconds)
        with _bf16(device):
            logits = model(batch.text[:, :-1].to(device))
        nll = F.cross_entropy(logits.float().flatten(0, 1), batch.text[:, 1:].flatten().to(device), reduction="none")
        weights = batch.weights.flatten().to(device)
        loss = (nll * weights).sum() / weights.sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), config.schedule.clip_norm)
        optimizer.step()
        at["step"] += 1
        at["tokens"] += weights.numel()
        if at["step"] % 100 == 0 or at["step"] == 1:
            print(f"step {at['step']}  {at['seconds']:.0f} s  {at['tokens']:,} tokens  {loss.item():.3f}", flush=True)
        if time.monotonic() - saved > SAVE_EVERY:
            _save(model, out, at)
            saved = time.monotonic()
    _save(model, out, at)

    def logits_of(rows: Tensor) -> Tensor:
        with _bf16(device):
            found: Tensor = model(rows)
        return found

    scores = at | {"parameters": sum(p.numel() for p in model.parameters())}
    scores |= reading_scores(logits_of, tokenizer, valid, device)
    (out / "scores.json").write_text(json.dumps(scores, indent=1))
    print(json.dumps(scores))
    return out


def _save(model: Transformer, out: Path, at: dict[str, float]) -> None:
    partial = out / "transformer.partial"
    save_file({name: t.half().cpu().contiguous() for name, t in model.state_dict().items()}, partial)
    partial.replace(out / WEIGHTS)
    (out / PROGRESS).write_text(json.dumps(at))


def _bf16(device: str) -> AbstractContextManager[None]:
    return torch.autocast(device, torch.bfloat16) if device == "cuda" else nullcontext()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m hope_serve.training.rival", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the TOML file of the HOPE model's run")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=2e-3, help="the highest learning rate; it begins from nothing")
    given = parser.parse_args()
    train(TrainConfig.load(given.run), seconds=given.seconds, rate=given.rate, out=given.out)


if __name__ == "__main__":
    main()
