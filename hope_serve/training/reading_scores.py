"""How well a model reads its own context: a repeated passage, the loss by position, the last word of a passage."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_serve.model.hope import HopeModel
from hope_serve.tokenizer import Tokenizer
from hope_serve.training.text import Ids

Logits = Callable[[Tensor], Tensor]
"""Ids [B, T] to next-token logits [B, T, V], each row in a context of its own."""

PASSAGE, WINDOW = 100, 1024
MARKS = (0, 64, 256, 512, 768, 1024)
NUM_ROWS, ROWS_AT_ONCE = 64, 8
MAX_LAST_WORDS = 500
_LEAST_WORDS, _MOST_WORDS = 45, 110


def logits_of(model: HopeModel) -> Logits:
    """A HOPE model without any memory."""
    return lambda rows: model.logits(model(rows, model.fresh_state(len(rows)))[0])


@torch.no_grad()
def reading_scores(logits: Logits, tokenizer: Tokenizer, ids: Ids, device: torch.device | str) -> dict[str, float]:
    """Of held-out text ``ids``: nats a token of passages of 100 tokens seen the first and the second time, nats a token
    by position in windows of 1,024, and the share of passages whose last word, which stands in them before, is got
    right by greedy steps.
    """
    starts = [i * (len(ids) - WINDOW - 1) // NUM_ROWS for i in range(NUM_ROWS)]
    passages = torch.tensor([[tokenizer.doc, *ids[at : at + PASSAGE].tolist()] for at in starts])
    twice = _nll(logits, torch.cat([passages, passages[:, 1:]], 1), device).mean(0)
    scores = {"repeated_first": twice[:PASSAGE].mean().item(), "repeated_second": twice[PASSAGE:].mean().item()}
    windows = torch.tensor([ids[at : at + WINDOW + 1].tolist() for at in starts])
    nll = _nll(logits, windows, device).mean(0)
    for begin, end in pairwise(MARKS):
        scores[f"nll_{begin}_{end}"] = nll[begin:end].mean().item()
    text = tokenizer.decode(ids[: min(len(ids), 600_000)].tolist())
    scores["last_word"] = _last_words(logits, tokenizer, text, device)
    return scores


def last_word_passages(text: str, most: int) -> list[tuple[str, str]]:
    """Up to ``most`` (passage without its last word, the word): the form of LAMBADA, drawn from ``text`` in order.

    The word has four letters or more, stands in the passage before its last sentence, and ends that sentence.
    """
    sentences = re.findall(r"[A-Z][^.!?\n]*[.!?]", re.sub(r"(?<!\n)\n(?!\n)", " ", text))
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(sentences) and len(found) < most:
        end, words = at, 0
        while end < len(sentences) and words < _LEAST_WORDS:
            words += len(sentences[end].split())
            end += 1
        before, last = " ".join(sentences[at : end - 1]), sentences[end - 1] if end else ""
        match = re.fullmatch(r"(.+) ([A-Za-z]{4,})[.!?]", last)
        if match and words <= _MOST_WORDS and re.search(rf"\b{match[2]}\b", before):
            found.append((f"{before} {match[1]}", f" {match[2]}"))
        at = end
    return found


def _last_words(logits: Logits, tokenizer: Tokenizer, text: str, device: torch.device | str) -> float:
    right, passages = 0, last_word_passages(text, MAX_LAST_WORDS)
    for at in range(0, len(passages), ROWS_AT_ONCE):
        pairs = [(tokenizer.encode_document(p), tokenizer.encode(w)) for p, w in passages[at : at + ROWS_AT_ONCE]]
        rows = [[*before, *word] for before, word in pairs]
        longest = max(map(len, rows))
        padded = torch.tensor([row + [tokenizer.pad] * (longest - len(row)) for row in rows], device=device)
        best = logits(padded[:, :-1]).argmax(-1)
        for (before, word), row in zip(pairs, best.tolist(), strict=True):
            right += row[len(before) - 1 : len(before) - 1 + len(word)] == word
    return right / max(1, len(passages))


def _nll(logits: Logits, rows: Tensor, device: torch.device | str) -> Tensor:
    """[B, T] of rows [B, T + 1]."""
    parts = []
    for group in torch.split(rows.to(device), ROWS_AT_ONCE):
        found = logits(group[:, :-1]).float()
        parts.append(
            F.cross_entropy(found.flatten(0, 1), group[:, 1:].flatten(), reduction="none").view(len(group), -1)
        )
    return torch.cat(parts)
