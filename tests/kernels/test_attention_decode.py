"""One token a sequence over its slot: reference and kernels against fp64, neighbours, bounds and what is refused."""

from __future__ import annotations

import pytest
import torch
from hope_kernels.attention_decode import attention_decode
from hope_kernels.attention_decode.reference import attention_decode_reference
from support.attention_data import BF16, DEVICE, F16, F32, SLOTS, TOLERANCE, exact, forget_after, ints, pools
from support.titans_data import relative

CASES = [  # T, Hk, Hq / Hk, D, dtype
    pytest.param(300, 2, 3, 64, F32, id="fp32"),
    pytest.param(7, 1, 1, 16, F32, id="short"),
    pytest.param(300, 1, 8, 32, F16, id="fp16"),
    pytest.param(65, 3, 2, 96, F32, id="96"),
    *(
        pytest.param(*case, id="-".join(map(str, case)), marks=pytest.mark.cuda)
        for case in (
            (8192, 3, 3, 64, BF16),
            (8192, 8, 4, 128, BF16),
            (2000, 2, 7, 64, F16),
            (1000, 1, 8, 128, F32),
            (777, 4, 5, 96, BF16),
        )
    ),
]


def kernels(*given):
    from hope_kernels.attention_decode.launch import launch_attention_decode

    return launch_attention_decode(*given)


BOTH = pytest.mark.parametrize("form", [attention_decode_reference, kernels])


def inputs(positions, heads, group, size, dtype):
    """Nine sequences: of no length, of one, of all; two of nobody's slot; queries that stand apart in memory."""
    keys, values = pools(positions, heads, size, dtype)
    slots = ints(3, 0, 7, 1, 0, 2, 8, 4, 5)
    lengths = ints(*(max(0, min(positions, n)) for n in (positions, 5, 1, positions // 2, 0, 0, 64, 65, positions - 1)))
    for slot, length in zip(slots.tolist(), lengths.tolist(), strict=True):
        forget_after(keys, values, slot, length)
    query = torch.randn(len(slots), heads * group + 2, size, device=DEVICE).to(dtype)[:, 1:-1]
    return query, keys, values, slots, lengths


def expected_of(query, keys, values, slots, lengths, scale):
    rows = zip(query, slots.tolist(), lengths.tolist(), strict=True)
    read = [
        exact(q[None], keys[s, :n], values[s, :n], scale)[0] if s and n else torch.zeros_like(q, dtype=torch.float64)
        for q, s, n in rows
    ]
    return torch.stack(read)


@pytest.fixture(autouse=True)
def empties_hold_nan(monkeypatch):
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, **options: empty(*shape, **options).fill_(torch.nan))


@BOTH
@pytest.mark.parametrize(("positions", "heads", "group", "size", "dtype"), CASES)
def test_every_sequence_reads_its_own_slot_as_far_as_it_goes(positions, heads, group, size, dtype, form):
    torch.manual_seed(0)
    given = inputs(positions, heads, group, size, dtype)
    expected = expected_of(*given, size**-0.5)
    y = form(*given, size**-0.5)
    assert y.dtype is dtype and y.shape == given[0].shape
    assert relative(y, expected) < TOLERANCE[dtype]
    assert not y[expected.flatten(1).eq(0).all(1)].any()


@BOTH
def test_a_sequence_gets_the_same_bits_alone_as_in_company(form):
    torch.manual_seed(0)
    query, keys, values, slots, lengths = inputs(290, 1, 3, 32, F32)
    y = form(query, keys, values, slots, lengths, 0.125)
    for row in range(len(slots)):
        one = slice(row, row + 1)
        alone = form(query[one], keys, values, slots[one].contiguous(), lengths[one].contiguous(), 0.125)
        assert torch.equal(alone[0], y[row])


@BOTH
def test_a_sequence_gets_the_same_bits_from_another_slot_of_a_longer_pool(form):
    torch.manual_seed(0)
    query, keys, values, slots, _ = inputs(300, 2, 2, 32, F32)
    y = form(query[:1], keys, values, slots[:1].contiguous(), ints(290), 0.2)
    longer = [torch.full((3, 1000, 2, 32), torch.nan, device=DEVICE) for _ in range(2)]
    for pool, other in zip((keys, values), longer, strict=True):
        other[1, :290] = pool[slots[0], :290]
    assert torch.equal(form(query[:1], *longer, ints(1), ints(290), 0.2), y)


@BOTH
def test_scores_too_large_for_an_exponent_do_no_harm(form):
    torch.manual_seed(0)
    query, keys, values, slots, lengths = inputs(400, 1, 2, 32, F32)
    given = (query * 300, keys, values, slots, lengths)
    assert relative(form(*given, 1.0), expected_of(*given, 1.0)) < 1e-2  # of scores of thousands


@pytest.mark.cuda
@pytest.mark.parametrize(("heads", "group", "size"), [(3, 3, 64), (8, 4, 128)])
def test_no_bit_depends_on_neighbours_or_on_how_many_they_are(heads, group, size):
    torch.manual_seed(0)
    keys, values = pools(4096, heads, size, BF16)
    query = torch.randn(256, heads * group, size, device=DEVICE).to(BF16)
    slots, lengths = (torch.randint(1, most, (256,), device=DEVICE).to(torch.int32) for most in (SLOTS, 4097))
    whole = attention_decode(query, keys, values, slots, lengths, 0.1)
    for count in (1, 2, 3, 16, 100):
        few = attention_decode(query[:count], keys, values, slots[:count], lengths[:count], 0.1)
        assert torch.equal(few, whole[:count])


@pytest.mark.cuda
def test_a_slot_that_does_not_exist_or_a_length_past_the_pool_gives_nan():
    query, keys, values, *_ = inputs(300, 1, 2, 32, F32)
    y = attention_decode(query[:5], keys, values, ints(-1, SLOTS, 1, 2, 0), ints(5, 5, 301, -1, 9), 1.0)
    assert y[:4].isnan().all() and not y[4].any()


@pytest.mark.cuda
def test_a_captured_graph_follows_slots_and_lengths():
    torch.manual_seed(0)
    query, keys, values, slots, lengths = inputs(700, 3, 3, 64, BF16)
    query, slots, lengths = (t.contiguous() for t in (query, slots, lengths))
    attention_decode(query, keys, values, slots, lengths, 0.125)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = attention_decode(query, keys, values, slots, lengths, 0.125)
    for _ in range(3):
        query.normal_()
        slots.copy_(slots.roll(1)), lengths.copy_(lengths.roll(1))
        graph.replay()
        assert relative(y, expected_of(query, keys, values, slots, lengths, 0.125)) < TOLERANCE[BF16]


def test_the_reference_is_differentiable_in_query_keys_and_values():
    torch.manual_seed(0)
    query, keys, values = (torch.randn(*s, dtype=torch.float64) for s in ((2, 4, 4), (3, 5, 2, 4), (3, 5, 2, 4)))
    leaves = tuple(t.requires_grad_() for t in (query, keys, values))
    slots, lengths = (torch.tensor(n, dtype=torch.int32) for n in ([2, 1], [5, 3]))
    assert torch.autograd.gradcheck(lambda *t: attention_decode(*t, slots, lengths, 0.5), leaves)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"query": torch.zeros(2, 4)}, "query's shape"),
        ({"query": torch.zeros(2, 3, 8)}, "query's heads"),
        ({"query": torch.zeros(2, 4, 4)}, "query's head size"),
        ({"query": torch.zeros(2, 4, 8, dtype=torch.int32)}, "query's dtype"),
        ({"keys": torch.zeros(3, 6, 2, 8, dtype=F16)}, "keys's dtype"),
        ({"values": torch.zeros(3, 5, 2, 8)}, "values's shape"),
        ({"values": torch.zeros(3, 2, 6, 8).transpose(1, 2)}, "values's strides"),
        ({"slots": torch.tensor([1, 3], dtype=torch.int32)}, "slots"),
        ({"slots": torch.tensor([1, 2])}, "slots's dtype"),
        ({"lengths": torch.tensor([1, 7], dtype=torch.int32)}, "lengths"),
        ({"lengths": torch.tensor([1], dtype=torch.int32)}, "lengths's shape"),
    ],
)
def test_what_does_not_fit_is_named(change, named):
    given = {
        "query": torch.zeros(2, 4, 8),
        "keys": torch.zeros(3, 6, 2, 8),
        "values": torch.zeros(3, 6, 2, 8),
        "slots": torch.tensor([1, 2], dtype=torch.int32),
        "lengths": torch.tensor([6, 0], dtype=torch.int32),
        "scale": 1.0,
    }
    with pytest.raises(ValueError, match=named):
        attention_decode(**given | change)
