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
# Relative error of both gradients against fp64 autograd on the same rounded inputs, by the dtype of x: the products
# are of fp16 numbers, and the gradients are rounded to it at the end.
TOLERANCE = {F32: 2e-3, F16: 3e-3, BF16: 8e-3}
CASES = [  # H, D, C, x, weights, causal, lengths
    pytest.param(2, 16, 5, F32, F32, True, (12, 1, 3, 8), id="odd"),
    pytest.param(2, 16, 5, F32, F32, False, (12, 1, 3, 8), id="odd-snapshot"),
    pytest.param(1, 32, 16, F32, F32, True, (37, 1, 11, 33), id="16"),
    pytest.param(1, 64, 33, F16, F16, True, (70, 1, 2, 31), id="fp16"),
    pytest.param(1, 16, 64, F32, F32, True, (140, 1, 2, 64), id="64"),
    *(
        pytest.param(*case[1:], (2000, 1, 63, 100), id=case[0], marks=pytest.mark.cuda)
        for case in (
            ("128-64", 16, 128, 64, BF16, BF16, True),
            ("128-fp32", 3, 128, 64, F32, F32, True),
            ("128-16", 16, 128, 16, F16, BF16, True),
            ("128-50-snapshot", 3, 128, 50, F32, BF16, False),
            ("64-64", 32, 64, 64, BF16, F32, True),
            ("64-33-snapshot", 3, 64, 33, F32, F16, False),
        )
    ),
]


def both(*arguments):
    from hope_kernels.titans_chunk.gradient import differentiable_chunk

    x, q, grad, *rest = arguments
    given = [z.detach().requires_grad_() for z in (x, q)]
    return torch.autograd.grad(differentiable_chunk(*given, *rest), given, grad)


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


@pytest.mark.parametrize(("heads", "size", "chunk", "x_dtype", "w_dtype", "causal", "lengths"), CASES)
def test_the_kernels_gradients_are_autograds(heads, size, chunk, x_dtype, w_dtype, causal, lengths):
    torch.manual_seed(0)
    rule = TitansRule(chunk_size=chunk, eta_max=0.1, causal=causal)
    weights = linear_weights(heads, size, w_dtype, DEVICE)
    state = pool(weights, rule, (0, 1, chunk - 1, chunk // 2))
    slots, starts = runs(lengths)
    x, q, grad = (torch.randn(int(starts[-1]), heads, size, device=DEVICE).to(x_dtype) for _ in range(3))
    expected = autograd(x, q, grad, weights, rule, state, slots, starts)
    for found, right in zip(both(x, q, grad, weights, rule, state, slots, starts), expected, strict=True):
        assert found.dtype is x_dtype
        assert relative(found, right) < TOLERANCE[x_dtype]


def test_gradients_of_any_size_keep_their_digits_and_one_sequence_leaves_the_others_alone():
    torch.manual_seed(0)
    rule = TitansRule(chunk_size=5)
    weights = linear_weights(1, 16, device=DEVICE)
    state = pool(weights, rule, (0, 3))
    x, q, grad = torch.randn(3, 2 * 13, 1, 16, device=DEVICE).unbind()
    slots = torch.tensor([1, 2], device=DEVICE)
    plain = both(x, q, grad, weights, rule, twin(state), slots, None)
    grad[:13] *= 2.0**-40
    for small, large in zip(both(x, q, grad, weights, rule, state, slots, None), plain, strict=True):
        assert torch.equal(small[:13] * 2.0**40, large[:13])
        assert torch.equal(small[13:], large[13:])


def test_a_token_without_length_gets_a_finite_gradient():
    torch.manual_seed(0)
    rule = TitansRule(chunk_size=5)
    weights = linear_weights(1, 16, device=DEVICE)
    x, q, grad = torch.randn(3, 13, 1, 16, device=DEVICE).unbind()
    x[3], q[4] = 0, 0
    slots = torch.tensor([1], device=DEVICE)
    for found in both(x, q, grad, weights, rule, pool(weights, rule, (0,)), slots, None):
        assert found.isfinite().all()
