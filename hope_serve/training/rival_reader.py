"""A Transformer that ``rival`` left in a folder, read in this process: how likely ids and words are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hope_serve.tokenizer import Tokenizer
from hope_serve.training.rival import CONFIG, PROGRESS, TOKENIZER, WEIGHTS, Transformer, TransformerConfig


class RivalReader:
    """One text at a time, in a thread, in 32 bit.

    Args:
        progress: ``progress.json`` of its training.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer, progress: dict[str, Any]) -> None:
        self._model, self._tokenizer, self._progress = model, tokenizer, progress
        self._device = model.embedding.device
        self._one_at_a_time = asyncio.Lock()

    @classmethod
    def load(cls, folder: Path) -> RivalReader:
        """Read a folder of ``rival.train``. Raises ValueError: a file is missing or of another form."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            config = TransformerConfig(**json.loads((folder / CONFIG).read_text("utf-8")))
            progress = json.loads((folder / PROGRESS).read_text("utf-8"))
            model = Transformer(config)
            model.load_state_dict(load_file(folder / WEIGHTS))
            tokenizer = Tokenizer.load(folder / TOKENIZER)
        except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
            raise ValueError(
                f"{folder} holds no trained rival ({error}); python -m hope_serve.training.rival makes one, and "
                "completes the folder of an earlier one"
            ) from error
        return cls(model.float().requires_grad_(False).to(device), tokenizer, progress)

    @property
    def max_tokens(self) -> int:
        """As many as its rows had in training: it knows no later positions."""
        return self._model.config.row_tokens

    @property
    def note(self) -> str:
        """What it is, and what it was trained on."""
        size = sum(p.numel() for p in self._model.parameters())
        return (
            f"a Transformer of {size:,} parameters, trained for {self._progress['seconds']:,.0f} s on "
            f"{self._progress['tokens']:,} tokens in rows of {self.max_tokens:,}, beyond which it does not read"
        )

    def encode(self, text: str) -> list[int]:
        """Ids of plain text."""
        return self._tokenizer.encode(text)

    async def token_logprobs(self, prompt: Sequence[int], rest: Sequence[int]) -> tuple[float, ...]:
        """Log-probabilities of the ids of ``rest`` after ``prompt``, which is not empty."""
        weighed, _ = await self._read(prompt, rest)
        return tuple(weighed.tolist())

    async def word(self, before: str, word: str) -> tuple[float, bool]:
        """A word's log-probability after a text, and whether its tokens are the likeliest."""
        weighed, greedy = await self._read(self.encode(before), self.encode(word))
        return float(weighed.sum()), bool(greedy.all())

    async def _read(self, prompt: Sequence[int], rest: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Log-probabilities [N] of the ids of ``rest``, and whether each is the likeliest [N]."""
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._weighed, prompt, rest)

    @torch.no_grad()
    def _weighed(self, prompt: Sequence[int], rest: Sequence[int]) -> tuple[Tensor, Tensor]:
        row = torch.tensor([[*prompt, *rest]], device=self._device)
        logits = self._model(row[:, :-1])[0, len(prompt) - 1 :].float()
        asked = row[0, len(prompt) :]
        weighed = logits.log_softmax(-1).gather(-1, asked[:, None])[:, 0]
        return weighed.cpu(), (logits.argmax(-1) == asked).cpu()
