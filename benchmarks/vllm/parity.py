"""Whether vLLM says what the native engine says: likelihoods against the noise of 16 bits, and greedy replies."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import Figure
from benchmarks.vllm.engines import CARD, DEVICE, row_of
from benchmarks.vllm.models import memories, write_checkpoint
from hope_serve.api import SamplingParams
from hope_serve.api.engine import GenerateTask, ScoreTask, TokenDrawn
from hope_serve.config import EngineConfig
from hope_serve.engine import NativeEngine, native_codec
from hope_serve.engine_config import VllmConfig
from hope_serve.metrics import Metrics
from hope_serve.model.attention_model import load_attention
from hope_serve.vllm_engine import VllmEngine
from hope_serve.vllm_engine.model import vllm_model

TEXTS, LENGTH, DRAWN = 64, 96, 32


def parity(name: str, folder: Path) -> Iterator[Figure]:
    """Pooled distances to the 32-bit engine, and where greedy replies part."""
    for dtype in ("float32", "float16"):
        write_checkpoint(folder / dtype, name, dtype)
    config = EngineConfig(max_slots=64, max_lessons=1, max_prompt_tokens=512, max_context_tokens=512)
    asked = _texts(folder)
    found = {
        "fp32": asyncio.run(_native(folder / "float32", name, config, asked)),
        "native": asyncio.run(_native(folder / "float16", name, config, asked)),
        "vllm": asyncio.run(_vllm(folder / "float16", name, config, asked)),
    }
    truth = torch.tensor(found["fp32"][0])
    floor, distance = ((torch.tensor(found[k][0]) - truth).abs().mean().item() for k in ("native", "vllm"))
    yield Figure(f"{name}: native in 16 bit from 32 bit, pooled log-likelihood", floor, "nats")
    yield Figure(f"{name}: vLLM in 16 bit from 32 bit, pooled log-likelihood", distance, "nats", f"<= {2 * floor:.3g}")
    largest = (torch.tensor(found["native"][0]) - truth).abs().max().item()
    parted, explained = _parted(found["native"][1], found["vllm"][1], largest)
    yield Figure(f"{name}: greedy replies that part from native's, of {TEXTS}", parted, "replies")
    yield Figure(f"{name}: of these, where the two best were nearer than the floor {2 * largest:.3g}", explained, "")


def _texts(folder: Path) -> list[tuple[int, ...]]:
    loaded = load_attention(folder / "float16", folder / "float16" / "memory.safetensors")
    vocab = loaded.config.vocab_size
    generator = torch.Generator().manual_seed(5)
    return [tuple(torch.randint(3, vocab, (LENGTH,), generator=generator).tolist()) for _ in range(TEXTS)]


async def _native(folder: Path, name: str, config: EngineConfig, texts: list[tuple[int, ...]]) -> Any:
    loaded = load_attention(folder, folder / "memory.safetensors")
    engine = NativeEngine(loaded, config, Metrics(), device=DEVICE)
    form = native_codec(loaded, config, device=DEVICE).form
    return await _asked(engine, form, name, texts)


async def _vllm(folder: Path, name: str, config: EngineConfig, texts: list[tuple[int, ...]]) -> Any:
    part = folder / "memory.safetensors"
    loaded = load_attention(folder, part)
    native = NativeEngine(loaded, config, Metrics(), device=DEVICE)  # for what it says of itself
    told = vllm_model(loaded, folder, config, device=DEVICE, part=part)
    vllm = VllmConfig(memory_share=0.3, attention_backend="TRITON_ATTN") if CARD else VllmConfig(cache_bytes=2**28)
    engine = VllmEngine(told, native.info, config, vllm, Metrics())
    form = native_codec(loaded, config, device=DEVICE).form
    return await _asked(engine, form, name, texts)


async def _asked(engine: Any, form: Any, name: str, texts: list[tuple[int, ...]]) -> Any:
    """(log-likelihoods of all texts' second halves, every greedy reply with its two best)."""
    rows = [row_of(form, memory * 3) for memory in memories(name, TEXTS, pinned=False)]
    await engine.start()
    try:
        scores = await asyncio.gather(
            *(
                engine.score(ScoreTask(prompt=t[:48], continuations=(t[48:],), memory=row))
                for t, row in zip(texts, rows, strict=True)
            )
        )
        drawn = await asyncio.gather(*(_drawn(engine, t, row) for t, row in zip(texts, rows, strict=True)))
    finally:
        await engine.close()
    return [p for (score,) in scores for p in score.token_logprobs], drawn


async def _drawn(engine: Any, text: tuple[int, ...], row: Any) -> list[tuple[int, float]]:
    asked = SamplingParams(temperature=0.0, max_tokens=DRAWN, logprobs=2, ignore_eos=True)
    events = engine.generate(GenerateTask(prompt=text, sampling=asked, memory=row))
    found = []
    async for came in events:
        for event in came:
            if isinstance(event, TokenDrawn) and event.logprob:
                (_, best), (_, second) = event.logprob.top
                found.append((event.token, best - second))
    return found


def _parted(ours: list[Any], theirs: list[Any], floor: float) -> tuple[int, int]:
    parted = explained = 0
    for mine, other in zip(ours, theirs, strict=True):
        at = next((i for i, (a, b) in enumerate(zip(mine, other, strict=True)) if a[0] != b[0]), None)
        if at is not None:
            parted += 1
            explained += mine[at][1] <= 2 * floor
    return parted, explained
