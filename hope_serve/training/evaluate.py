"""Scores of a model on what it never trained on: people with held-out values, and text."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from hope_serve.model.hope import HopeModel
from hope_serve.tokenizer import Tokenizer
from hope_serve.training.episodes import EpisodeBuilder
from hope_serve.training.meta import recall
from hope_serve.training.personas import PersonaFactory, Split
from hope_serve.training.plans import PLANS
from hope_serve.training.stream import unpack
from hope_serve.training.text import Ids, TextWindows

WINDOW = 512
MAX_WINDOWS = 256


def held_out_recall(model: HopeModel, tokenizer: Tokenizer, noise: Ids, *, episodes: int) -> dict[str, float]:
    """Recall of every plan on people whose values were never trained on; names are ``recall_<plan>_<group>``.

    ``noise``: ids of the text that comes between a plan's stages; ``episodes``: of every plan.
    """
    device = model.embedding.device
    windows = TextWindows(noise, tokenizer, seed=1)
    people = PersonaFactory(Split.HELD_OUT, seed=1)
    builder = EpisodeBuilder(tokenizer, people, windows.draw)
    scores: dict[str, float] = {}
    for plan in PLANS:
        tensors = builder.build(plan, episodes).tensors()
        shares = recall(model, plan, unpack(plan, [t.to(device) for t in tensors]))
        scores |= {f"recall_{plan.name}_{group}": share for group, share in shares.items()}
    return scores


@torch.no_grad()
def text_bits_per_byte(model: HopeModel, tokenizer: Tokenizer, ids: Ids) -> float:
    """Next-token loss over windows spread evenly over ``ids``, in bits per byte of their text."""
    count = max(1, min(MAX_WINDOWS, (len(ids) - 1) // WINDOW))
    starts = [i * (len(ids) - WINDOW - 1) // count for i in range(count)]
    nats, num_bytes = 0.0, 0
    for group in (starts[i : i + 16] for i in range(0, count, 16)):
        rows = torch.tensor([ids[at : at + WINDOW + 1].tolist() for at in group], device=model.embedding.device)
        hidden, _ = model(rows[:, :-1], model.fresh_state(len(rows)))
        nats += F.cross_entropy(model.logits(hidden).flatten(0, 1), rows[:, 1:].flatten(), reduction="sum").item()
        num_bytes += sum(len(tokenizer.token_bytes(token)) for row in rows[:, 1:].tolist() for token in row)
    return nats / math.log(2) / num_bytes
