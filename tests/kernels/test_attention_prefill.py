"""Runs of tokens over their slots: reference and kernel against fp64, cuts, neighbours, bounds and what is refused."""

from __future__ import annotations

import pytest
import torch
from hope_kernels.attention_prefill import attention_prefill
from hope_kernels.attention_prefill.reference import attention_prefill_reference
from support.attention_data import BF16, DEVICE, F16, F32, TOLERANCE, exact, forget_after, ints, pools, starts_of
from support.titans_data import relative

SLOTS = (4, 2, 7, 0, 5, 1, 0)
CASES = [  # T, Hk, Hq / Hk, D, dtype, lengths, pasts
    pytest.param(120, 2, 3, 64, F32, (1, 0, 37, 2, 64, 3, 5), (0, 9, 70, 3, 0, 117, 0), id="fp32"),
    pytest.param(40, 1, 1, 16, F32, (1, 1, 1, 1, 1, 1, 1), (0, 9, 39, 3, 0, 17, 0), id="one"),
    pytest.param(80, 1, 8, 32, F16, (33, 0, 1, 2, 16, 3, 5), (40, 9, 79, 3, 0, 17, 0), id="fp16"),
    pytest.param(90, 2, 2, 96, F32, (40, 0, 1, 2, 16, 3, 5), (50, 9, 79, 3, 0, 17, 0), id="96"),
    *(
        pytest.param(*case, id="-".join(map(str, case[:5])), marks=pytest.mark.cuda)
        for case in (
            (2048, 3, 3, 64, BF16, (2000, 0, 63, 100, 1, 3, 5), (0, 9, 1900, 3, 2047, 117, 0)),
            (2048, 8, 4, 128, BF16, (1000, 0, 513, 1, 64, 3, 5), (1048, 9, 70, 3, 0, 117, 0)),
            (700, 2, 7, 64, F16, (300, 0, 137, 2, 64, 3, 5), (0, 9, 70, 3, 0, 117, 0)),
            (700, 1, 8, 128, F32, (300, 0, 137, 2, 64, 3, 5), (0, 9, 70, 3, 0, 117, 0)),
            (700, 4, 5, 96, BF16, (300, 0, 137, 2, 64, 3, 5), (0, 9, 70, 3, 0, 117, 0)),
        )
    ),
]


def kernel(*given):
    from hope_kernels.attention_prefill.launch import launch_attention_prefill

    return launch_attention_prefill(*given)


BOTH = pytest.mark.parametrize("form", [attention_prefill_reference, kernel])


def inputs(positions, heads, group, size, dtype, lengths, pasts):
    """Queries that stand apart in memory; beyond a run's end a slot holds NaN."""
    keys, values = pools(positions, heads, size, dtype)
    for slot, length, past in zip(SLOTS, lengths, pasts, strict=True):
        forget_after(keys, values, slot, length + past)
    query = torch.randn(sum(lengths), heads * group + 2, size, device=DEVICE).to(dtype)[:, 1:-1]
    return query, keys, values, ints(*SLOTS), starts_of(*lengths), ints(*pasts)


def expected_of(query, keys, values, slots, starts, pasts, scale):
    bounds, parts = starts.tolist(), []
    for slot, past, begin, end in zip(slots.tolist(), pasts.tolist(), bounds, bounds[1:], strict=False):
        rows, length = query[begin:end], past + end - begin
        read = exact(rows, keys[slot, :length], values[slot, :length], scale) if slot else rows.double() * 0
        parts.append(read)
    return torch.cat(parts)


@pytest.fixture(autouse=True)
def empties_hold_nan(monkeypatch):
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, **options: empty(*shape, **options).fill_(torch.nan))


@BOTH
@pytest.mark.parametrize(("positions", "heads", "group", "size", "dtype", "lengths", "pasts"), CASES)
def test_every_token_reads_its_slot_up_to_itself(positions, heads, group, size, dtype, lengths, pasts, form):
    torch.manual_seed(0)
    given = inputs(positions, heads, group, size, dtype, lengths, pasts)
    expected = expected_of(*given, size**-0.5)
    y = form(*given, size**-0.5)
    assert y.dtype is dtype and y.shape == given[0].shape
    assert relative(y, expected) < TOLERANCE[dtype]


@BOTH
@pytest.mark.parametrize("group", [1, 3])
def test_a_prompt_gives_the_same_bits_however_it_is_cut(group, form):
    torch.manual_seed(0)
    keys, values = pools(200, 2, 32, F32)
    query = torch.randn(150, 2 * group, 32, device=DEVICE)
    whole = form(query, keys, values, ints(3), starts_of(150), ints(20), 0.2)
    parts, at = [], 0
    for length in (1, 2, 60, 17, 7, 63):
        forget_after(keys, values, 4, 0)
        for pool in (keys, values):
            pool[4, : 20 + at + length] = pool[3, : 20 + at + length]
        parts.append(form(query[at : at + length], keys, values, ints(4), starts_of(length), ints(20 + at), 0.2))
        at += length
    assert torch.equal(torch.cat(parts), whole)


@BOTH
def test_a_run_gets_the_same_bits_alone_as_in_company(form):
    torch.manual_seed(0)
    lengths, pasts = (1, 0, 37, 2, 64, 3, 5), (0, 9, 70, 3, 0, 117, 0)
    query, keys, values, slots, starts, _ = inputs(120, 2, 3, 64, F32, lengths, pasts)
    y, bounds = form(query, keys, values, slots, starts, ints(*pasts), 0.125), starts.tolist()
    for run, (length, past) in enumerate(zip(lengths, pasts, strict=True)):
        rows = slice(bounds[run], bounds[run + 1])
        if length:
            alone = form(query[rows], keys, values, ints(SLOTS[run]), starts_of(length), ints(past), 0.125)
            assert torch.equal(alone, y[rows])


@BOTH
def test_scores_too_large_for_an_exponent_do_no_harm(form):
    torch.manual_seed(0)
    query, *rest = inputs(90, 1, 2, 32, F32, (40, 0, 1, 2, 16, 3, 5), (50, 9, 79, 3, 0, 17, 0))
    given = (query * 300, *rest)
    assert relative(form(*given, 1.0), expected_of(*given, 1.0)) < 1e-2  # of scores of thousands


@pytest.mark.cuda
@pytest.mark.parametrize(("heads", "group", "size", "dtype"), [(3, 3, 64, BF16), (8, 4, 128, BF16), (2, 7, 64, F32)])
def test_no_bit_depends_on_a_long_prompts_cut(heads, group, size, dtype):
    torch.manual_seed(0)
    keys, values = pools(2048, heads, size, dtype)
    query = torch.randn(2048, heads * group, size, device=DEVICE).to(dtype)
    whole = attention_prefill(query, keys, values, ints(3), starts_of(2048), ints(0), 0.1)
    assert relative(whole, exact(query, keys[3], values[3], 0.1)) < TOLERANCE[dtype]
    at = 0
    for length in (1, 31, 512, 700, 804):
        run = query[at : at + length]
        assert torch.equal(
            attention_prefill(run, keys, values, ints(3), starts_of(length), ints(at), 0.1), whole[at : at + length]
        )
        at += length


@pytest.mark.cuda
def test_a_slot_that_does_not_exist_or_a_run_past_the_pool_gives_nan():
    keys, values = pools(50, 1, 32, F32)
    query, starts = torch.randn(7, 2, 32, device=DEVICE), starts_of(2, 2, 2, 1)
    y = attention_prefill(query, keys, values, ints(-1, 9, 1, 0), starts, ints(0, 0, 49, 60), 1.0)
    assert y[:6].isnan().all()


def test_the_reference_is_differentiable_in_query_keys_and_values():
    torch.manual_seed(0)
    query, keys, values = (torch.randn(*s, dtype=torch.float64) for s in ((4, 4, 4), (3, 5, 2, 4), (3, 5, 2, 4)))
    leaves = tuple(t.requires_grad_() for t in (query, keys, values))
    slots, starts, pasts = (torch.tensor(n, dtype=torch.int32) for n in ([2, 1], [0, 3, 4], [2, 0]))
    assert torch.autograd.gradcheck(lambda *t: attention_prefill(*t, slots, starts, pasts, 0.5), leaves)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"query": torch.zeros(4, 4)}, "query's shape"),
        ({"query": torch.zeros(4, 3, 8)}, "query's heads"),
        ({"keys": torch.zeros(3, 6, 2, 8, dtype=F16)}, "keys's dtype"),
        ({"values": torch.zeros(3, 5, 2, 8)}, "values's shape"),
        ({"slots": torch.tensor([1, 3], dtype=torch.int32)}, "slots"),
        ({"starts": torch.tensor([0, 1, 5], dtype=torch.int32)}, "starts"),
        ({"starts": torch.tensor([0, 1, 4])}, "starts's dtype"),
        ({"pasts": torch.tensor([0, 4], dtype=torch.int32)}, "pasts"),
        ({"pasts": torch.tensor([-1, 0], dtype=torch.int32)}, "pasts"),
        ({"pasts": torch.tensor([1], dtype=torch.int32)}, "pasts's shape"),
    ],
)
def test_what_does_not_fit_is_named(change, named):
    given = {
        "query": torch.zeros(4, 4, 8),
        "keys": torch.zeros(3, 6, 2, 8),
        "values": torch.zeros(3, 6, 2, 8),
        "slots": torch.tensor([1, 2], dtype=torch.int32),
        "starts": torch.tensor([0, 1, 4], dtype=torch.int32),
        "pasts": torch.tensor([5, 3], dtype=torch.int32),
        "scale": 1.0,
    }
    with pytest.raises(ValueError, match=named):
        attention_prefill(**given | change)
