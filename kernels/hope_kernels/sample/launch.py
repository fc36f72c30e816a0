"""How sampling's kernels are launched: block shapes by vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor

from hope_kernels.sample.draw_kernel import draw_kernel
from hope_kernels.sample.rows import LEAST_TEMPERATURE, Sampled, SamplingRows
from hope_kernels.sample.shape_kernel import shape_kernel
from hope_kernels.sample.top_kernel import top_kernel, top_of_tile_kernel


@dataclass(frozen=True)
class SampleBlocks:
    """Logits of a program that shapes them, and its warps; logits that a draw takes at a time, and its warps.

    held: the row's length as a power of two where the search keeps all its weights in registers, else 0.
    """

    shape: int
    shape_warps: int
    draw: int
    draw_warps: int
    held: int


def sample_blocks(vocab_size: int) -> SampleBlocks:
    """The table. A thousand threads have registers for 32,768 weights and little else: the draw takes small steps."""
    wide = max(1024, int(triton.next_power_of_2(vocab_size)))
    warps = min(32, wide // 1024)
    held = wide if wide <= 32768 else 0
    return SampleBlocks(shape=2048, shape_warps=4, draw=warps * (128 if held else 256), draw_warps=warps, held=held)


def launch_sample(
    logits: Tensor, slots: Tensor, rows: SamplingRows, num_top: int, blocks: SampleBlocks | None = None
) -> Sampled:
    """``sample`` on the kernels; arguments have been checked."""
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    blocks = blocks or sample_blocks(logits.shape[1])
    parts = _shape(logits, slots, rows, blocks)
    out, logsum = _draw(logits, slots, rows, parts, num_top, blocks)
    if num_top:
        _name_top(logits, slots, logsum, out, blocks)
    return out


@dataclass(frozen=True)
class _Parts:
    """What ``shape_kernel`` leaves: the shaped logits [B, V], and three numbers a tile, [B, tiles]."""

    shaped: Tensor
    best: Tensor
    peak: Tensor
    mass: Tensor


def _shape(logits: Tensor, slots: Tensor, rows: SamplingRows, blocks: SampleBlocks) -> _Parts:
    (count, vocab_size), device = logits.shape, logits.device
    tiles = triton.cdiv(vocab_size, blocks.shape)
    stops, biases = rows.stop_ids.shape[1], rows.bias_ids.shape[1]
    parts = _Parts(
        shaped=torch.empty(count, vocab_size, dtype=torch.float32, device=device),
        best=torch.empty(count, tiles, dtype=torch.int64, device=device),
        peak=torch.empty(count, tiles, dtype=torch.float32, device=device),
        mass=torch.empty(count, tiles, dtype=torch.float32, device=device),
    )
    in_prompt = rows.in_prompt.view(torch.uint8)
    shape_kernel[(count * tiles,)](
        logits,
        slots,
        parts.shaped,
        parts.best,
        parts.peak,
        parts.mass,
        rows.temperature,
        rows.repetition_penalty,
        rows.presence_penalty,
        rows.frequency_penalty,
        rows.position,
        rows.min_tokens,
        rows.stop_ids,
        rows.bias_ids,
        rows.bias_values,
        rows.counts,
        in_prompt,
        logits.stride(0),
        rows.counts.stride(0),
        in_prompt.stride(0),
        len(rows.temperature),
        LEAST_TEMPERATURE,
        V=vocab_size,
        BLOCK=blocks.shape,
        STOPS=stops,
        STOPS_WIDE=triton.next_power_of_2(max(1, stops)),
        BIASES=biases,
        BIASES_WIDE=triton.next_power_of_2(max(1, biases)),
        num_warps=blocks.shape_warps,
        # A penalty's product and difference round twice, as they do on a CPU.
        enable_fp_fusion=False,
    )
    return parts


def _draw(
    logits: Tensor, slots: Tensor, rows: SamplingRows, parts: _Parts, num_top: int, blocks: SampleBlocks
) -> tuple[Sampled, Tensor]:
    """(the tokens, their ``top_*`` not filled in yet; each row's log of its sum of exp)."""
    (count, vocab_size), device = logits.shape, logits.device
    tiles = parts.best.shape[1]
    out = Sampled(
        token_B=torch.empty(count, dtype=torch.int64, device=device),
        logprob_B=torch.empty(count, dtype=torch.float32, device=device),
        top_ids_BN=torch.empty(count, num_top, dtype=torch.int64, device=device),
        top_logprobs_BN=torch.empty(count, num_top, dtype=torch.float32, device=device),
        is_number_B=torch.empty(count, dtype=torch.bool, device=device),
    )
    logsum = torch.empty(count, dtype=torch.float32, device=device)
    draw_kernel[(count,)](
        parts.shaped,
        logits,
        slots,
        parts.best,
        parts.peak,
        parts.mass,
        rows.temperature,
        rows.top_p,
        rows.min_p,
        rows.top_k,
        rows.seed,
        rows.position,
        rows.counts,
        out.token_B,
        out.logprob_B,
        out.is_number_B.view(torch.int8),
        logsum,
        logits.stride(0),
        rows.counts.stride(0),
        len(rows.temperature),
        LEAST_TEMPERATURE,
        V=vocab_size,
        PARTS=tiles,
        PARTS_WIDE=triton.next_power_of_2(tiles),
        BLOCK=blocks.draw,
        HELD=blocks.held,
        COLUMNS=min(128, blocks.draw),
        PLACES=triton.next_power_of_2(triton.cdiv(vocab_size, blocks.draw)),
        num_warps=blocks.draw_warps,
        enable_fp_fusion=False,
    )
    return out, logsum


def _name_top(logits: Tensor, slots: Tensor, logsum: Tensor, out: Sampled, blocks: SampleBlocks) -> None:
    count, vocab_size = logits.shape
    num_top, tiles = out.top_ids_BN.shape[1], triton.cdiv(vocab_size, blocks.shape)
    best = torch.empty(count, tiles, num_top, dtype=torch.int64, device=logits.device)
    top_of_tile_kernel[(count * tiles,)](
        logits, slots, best, logits.stride(0), V=vocab_size, TOP=num_top, BLOCK=blocks.shape, num_warps=4
    )
    top_kernel[(count,)](
        best,
        slots,
        logsum,
        out.top_ids_BN,
        out.top_logprobs_BN,
        FOUND=tiles * num_top,
        FOUND_WIDE=triton.next_power_of_2(tiles * num_top),
        TOP=num_top,
        num_warps=4,
    )
