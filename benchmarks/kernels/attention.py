"""Figure 11: attention by slot, against bytes and beside torch's own attention, and what stands around it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from hope_kernels.attention_decode import attention_decode
from hope_kernels.attention_decode.reference import attention_decode_reference
from hope_kernels.attention_prefill import attention_prefill
from hope_kernels.attention_prefill.reference import attention_prefill_reference
from hope_kernels.cache_write import cache_write, rotation_tables
from hope_kernels.swiglu import swiglu
from torch import Tensor

from benchmarks.kernels.bench import Bench
from benchmarks.kernels.cms_data import BF16, runs_of, shuffled
from benchmarks.kernels.errors import relative
from benchmarks.kernels.table import Row, at_least

TOLERANCE = 1.2e-2  # bf16, relative
CACHED = 400 << 20  # bytes that no cache keeps from one replay to the next


class Heads(NamedTuple):
    """Of a model: query heads, key heads, head size; and how wide its gated unit is."""

    query: int
    key: int
    size: int
    wide: int


SHAPES = {"9/3x64": Heads(9, 3, 64, 1536), "32/8x128": Heads(32, 8, 128, 14336)}
TINY = {"4/2x16": Heads(4, 2, 16, 24)}
DECODE = ((1, 8192), (16, 8192), (64, 2048), (256, 2048))  # sequences, positions
PREFILL = ((8, 2048), (1, 8192))


def shapes(bench: Bench) -> dict[str, Heads]:
    """The models by name."""
    return SHAPES if bench.device == "cuda" else TINY


def pools(slots: int, positions: int, heads: Heads) -> tuple[Tensor, Tensor]:
    """Keys and values, two views of one pool."""
    whole = torch.randn(slots, 2, positions, heads.key, heads.size, dtype=BF16)
    return whole[:, 0], whole[:, 1]


def check_attention(bench: Bench) -> list[Row]:
    """Decode and prefill against fp64 at odd lengths, null slots among them."""
    worst = {"attention_decode": 0.0, "attention_prefill": 0.0}
    lengths = [700, 0, 63, 1, 129] if bench.measures else [40, 0, 3, 1, 2]
    for heads in shapes(bench).values():
        keys, values = pools(7, max(lengths), heads)
        wide, slots = (keys.double(), values.double()), shuffled(6)[:5].to(torch.int32)
        slots[3] = 0
        numbers = torch.tensor(lengths, dtype=torch.int32)
        query = torch.randn(5, heads.query, heads.size, dtype=BF16)
        expected = attention_decode_reference(query.double(), *wide, slots, numbers, heads.size**-0.5)
        given = attention_decode(query, keys, values, slots, numbers, heads.size**-0.5)
        worst["attention_decode"] = max(worst["attention_decode"], relative(given, expected))
        query, starts = torch.randn(sum(lengths), heads.query, heads.size, dtype=BF16), runs_of(lengths)
        pasts = torch.zeros(5, dtype=torch.int32)
        expected = attention_prefill_reference(query.double(), *wide, slots, starts, pasts, heads.size**-0.5)
        given = attention_prefill(query, keys, values, slots, starts, pasts, heads.size**-0.5)
        worst["attention_prefill"] = max(worst["attention_prefill"], relative(given, expected))
    return [
        Row("check", f"{op} against fp64", None, "", error, "relative", f"<= {TOLERANCE:g}", error <= TOLERANCE)
        for op, error in worst.items()
    ]


def time_decode(bench: Bench) -> list[Row]:
    """One token of each sequence over its history, layers of their own in one graph; torch's over the same bytes."""
    rows = []
    for name, heads in shapes(bench).items():
        for count, positions in DECODE if bench.measures else ((2, 5),):
            num_bytes = 4 * count * positions * heads.key * heads.size
            layers = [pools(count + 1, positions, heads) for _ in range(min(24, 1 + CACHED // num_bytes))]
            slots, lengths = shuffled(count).to(torch.int32), torch.full((count,), positions, dtype=torch.int32)
            query, scale = torch.randn(count, heads.query, heads.size, dtype=BF16), heads.size**-0.5

            def kernel(query=query, layers=layers, slots=slots, lengths=lengths, scale=scale) -> None:
                for keys, values in layers:
                    attention_decode(query, keys, values, slots, lengths, scale)

            def library(query=query, layers=layers) -> None:
                for keys, values in layers:
                    key, value = (pool[1:].transpose(1, 2) for pool in (keys, values))
                    F.scaled_dot_product_attention(query[:, :, None], key, value, enable_gqa=True)

            seconds, other = (bench.replay(call) / len(layers) for call in (kernel, library))
            case, target = f"attention_decode {name} B={count} over {positions}", 0.7 if count > 1 else None
            rate = f"{other / seconds:.2f} x torch's"
            rows.append(at_least("11", case, seconds, rate, num_bytes / seconds / bench.read, "of read", target))
            case = case.replace("attention_decode", "torch's own")
            rows.append(Row("11", case, other, "", num_bytes / other / bench.read, "of read"))
    return rows


def time_prefill(bench: Bench) -> list[Row]:
    """Prompts from nothing; torch's own causal attention beside."""
    rows = []
    for name, heads in shapes(bench).items():
        for count, tokens in PREFILL if bench.measures else ((2, 5),):
            keys, values = pools(count + 1, tokens, heads)
            slots, starts = shuffled(count).to(torch.int32), runs_of([tokens] * count)
            pasts, scale = torch.zeros(count, dtype=torch.int32), heads.size**-0.5
            query = torch.randn(count * tokens, heads.query, heads.size, dtype=BF16)
            own = query.view(count, tokens, heads.query, heads.size).transpose(1, 2)
            others = [pool[1:].transpose(1, 2) for pool in (keys, values)]
            given = (query, keys, values, slots, starts, pasts, scale)
            seconds = bench.repeat(lambda given=given: attention_prefill(*given))
            other = bench.repeat(
                lambda own=own, others=others: F.scaled_dot_product_attention(
                    own, *others, is_causal=True, enable_gqa=True
                )
            )
            work = 2 * count * tokens * (tokens + 1) * heads.query * heads.size
            case, rate = f"attention_prefill {name} {count} x {tokens}", f"{work / seconds / 1e12:.0f} TFLOP/s"
            rows.append(Row("11", case, seconds, rate, other / seconds, "x torch's"))
    return rows


def time_around(bench: Bench) -> list[Row]:
    """cache_write and swiglu over a step's rows and a prefill's."""
    rows = []
    for name, heads in shapes(bench).items():
        for count in (256, 16384) if bench.measures else (3,):
            width = (heads.query + 2 * heads.key) * heads.size
            qkv, keys_values = torch.randn(count, width, dtype=BF16), pools(count + 1, 16, heads)
            tables = rotation_tables(torch.rand(heads.size // 2), 16)
            numbers = torch.arange(count, dtype=torch.int32)
            given = (qkv, numbers % 16, numbers + 1, *tables, *keys_values)
            gate_up = torch.randn(count, 2 * heads.wide, dtype=BF16)
            for case, call, num_bytes in (
                ("cache_write", lambda given=given: cache_write(*given), 4 * width),
                ("swiglu", lambda gate_up=gate_up: swiglu(gate_up), 6 * heads.wide),
            ):
                seconds = bench.replay(call)
                floor = num_bytes * count / bench.copy
                rows.append(Row("11", f"{case} {name} N={count}", seconds, "", floor / seconds, "of copy"))
    return rows
