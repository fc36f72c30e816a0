"""A Transformer of the same size: every user's past is a cache that grows, and comes back by being read again."""

from __future__ import annotations

import time

import torch

from benchmarks.report import Figure
from benchmarks.serving.models import config_of

BATCH = 16


@torch.no_grad()
def peer(name: str, *, histories: tuple[int, ...]) -> list[Figure]:
    """Decode of 16 users, bytes of a user's past, and the first token of a user who returns, by length of history."""
    from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM  # type: ignore[import-not-found]

    ours = config_of(name)
    heads = ours.titans.num_heads
    config = LlamaConfig(
        vocab_size=ours.vocab_size,
        hidden_size=ours.hidden_size,
        num_hidden_layers=ours.num_layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=sum(level.hidden_size for level in ours.levels) * 2 // 3,  # three matrices where we have two
        max_position_embeddings=1 << 16,
    )
    with torch.device("cuda"):
        model = LlamaForCausalLM(config).half().eval()
    figures = []
    for history in histories:
        past, size = DynamicCache(), (BATCH, heads, history, ours.hidden_size // heads)
        for layer in range(ours.num_layers):
            past.update(*(torch.randn(size, device="cuda", dtype=torch.float16) for _ in range(2)), layer)
        tokens = torch.zeros(BATCH, 1, dtype=torch.long, device="cuda")
        seconds = _timed(lambda t=tokens, p=past: model(t, past_key_values=p, use_cache=True), 8)
        returning = torch.zeros(1, history, dtype=torch.long, device="cuda")
        first = _timed(lambda r=returning: model(r, use_cache=True, logits_to_keep=1), 3)
        past_bytes = 2 * ours.num_layers * history * ours.hidden_size * 2
        label = f"transformers, Llama of {name}, history {history}"
        figures += [
            Figure(f"{label}: {BATCH} users", BATCH / seconds, "tokens/s"),
            Figure(f"{label}: a user's past", past_bytes / 2**20, "MiB"),
            Figure(f"{label}: first token of a returning user", first * 1e3, "ms"),
        ]
        del past
        torch.cuda.empty_cache()
    return figures


def _timed(call, repeats: int) -> float:
    call()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / repeats
