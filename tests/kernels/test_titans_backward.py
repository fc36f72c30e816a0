"""Chunk's backward: the one derived by hand against autograd in fp64, the kernels against both."""

from __future__ import annotations

import pytest
import torch
from hope_kernels.layout import TitansRule
from hope_kernels.pool import take, weights_in
from hope_kernels.titans_chunk.backward_reference import gathered_backward
from hope_kernels.titans_chunk.reference import _Writes, log_alpha, project, titans_chunk_reference
from hope_kernels.titans_chunk.slots_reference import titans_chunk_slots_reference
from hope_kernels.titans_commit.reference import close_open_row
from support.titans_data import in_double, linear_weights, pool, relative, twin

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16


def runs(lengths):
    """A pool of slots 1..4 in another order, with padding between; the run of the padding is 5 tokens long."""
    slots = torch.tensor([4, 2, 0, 1, 3], dtype=torch.int32, device=DEVICE)
    lengths = torch.tensor([0, *lengths[:2], 5, *lengths[2:]])
    return slots, lengths.cumsum(0).to(DEVICE, torch.int32)


def autograd(x, q, grad, weights, rule, state, slots, starts):
    wide = [z.detach().double().requires_grad_() for z in (x, q)]
    out = titans_chunk_slots_reference(*wide, weights, rule, (in_double(state),), slots, starts)
    return torch.autograd.grad(out, wide, grad.double())


def records(x, weights, rule, state, slots, starts):
    """What the forward's kernels leave, in fp64."""
    heads, size = x.shape[1:]
    count = len(x) // rule.chunk_size + 2 * len(slots)
    span = torch.zeros(count, 3, dtype=torch.int32)
    keys, writes = torch.zeros(2, count, heads, rule.chunk_size, size, dtype=torch.float64)
    frozen = torch.zeros(count, heads, size, size, dtype=torch.float64)
    gates = torch.zeros(count, heads, 7, rule.chunk_size, dtype=torch.float64)
    for b, slot in enumerate(slots.tolist()):
        begin, end = int(starts[b]), int(starts[b + 1])
        clock, chunk = take(state, torch.tensor([slot]), torch.float64), begin // rule.chunk_size + 2 * b
        at = int(clock.position[0, 0]) if slot else 0
        while slot and begin < end:
            stop = min(end, begin + rule.chunk_size - at)
            rows = x[begin:stop].transpose(0, 1)[None]
            closed = close_open_row(clock) if at else clock
            k, v, eta, alpha = project(rows, rows @ clock.matrix, weights, rule)
            made = _Writes(closed, at, k, v, eta, alpha)
            total = at + stop - begin
            span[chunk] = torch.tensor([at, begin, stop])
            keys[chunk, :, :total], writes[chunk, :, :total] = made.all_k[0], made.all_w[0] / rule.eta_max
            frozen[chunk] = clock.matrix[0].mT
            gates[chunk, :, :3, at:total] = torch.stack([eta, made.decay[..., at:], made.decay_before], 2)[0]
            gates[chunk, :, 1, :at] = closed.ring_gate[0, :, :at, 1]
            gates[chunk, :, 1, total:] = made.decay[0, :, -1:]
            gates[chunk, :, 2, total:] = made.decay[0, :, -1:]
            gates[chunk, :, 2, 1:at] = closed.ring_gate[0, :, : at - 1, 1] if at else 0
            assert log_alpha(alpha).isfinite().all()
            _, (clock,) = titans_chunk_reference(rows, rows, weights, rule, (clock,), positions=(at,))
            begin, at, chunk = stop, int(clock.position[0, 0]), chunk + 1
    return span, keys, writes, frozen, gates


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("alpha_min", [0.0, 0.5])
def test_the_gradient_by_hand_is_autograds(causal, alpha_min):
    torch.manual_seed(0)
    rule = TitansRule(chunk_size=5, eta_max=0.3, alpha_min=alpha_min, causal=causal)
    weights = weights_in(linear_weights(2, 16), torch.float64)
    state = in_double(pool(weights, rule, (0, 1, 4, 2)))
    slots, starts = (z.cpu() for z in runs((12, 1, 3, 8)))
    x, q, grad = torch.randn(3, int(starts[-1]), 2, 16, dtype=torch.float64).unbind()
    expected = autograd(x, q, grad, weights, rule, twin(state), slots, starts)
    recorded = records(x, weights, rule, state, slots, starts)
    for found, right in zip(gathered_backward(x, q, grad, weights, rule, recorded, starts), expected, strict=True):
        assert relative(found, right) < 1e-10
