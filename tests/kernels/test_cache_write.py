"""Rotation and writing by slot: reference and kernel against transformers' own rotation, and what is refused."""

from __future__ import annotations

import pytest
import torch
from hope_kernels.cache_write import cache_write, rotation_tables
from hope_kernels.cache_write.reference import cache_write_reference
from support.attention_data import BF16, DEVICE, F16, F32, ints, pools
from support.titans_data import relative

TOLERANCE = {F32: 5e-6, F16: 1e-3, BF16: 6e-3}  # relative
POSITIONS = 50
CASES = [  # Hk, Hq / Hk, D, dtype, bias
    pytest.param(2, 3, 64, F32, True, id="fp32"),
    pytest.param(1, 1, 2, F32, False, id="two"),
    pytest.param(2, 1, 32, F16, True, id="fp16"),
    pytest.param(1, 7, 96, F32, False, id="96"),
    *(
        pytest.param(*case, id="-".join(map(str, case)), marks=pytest.mark.cuda)
        for case in ((3, 3, 64, BF16, False), (8, 4, 128, BF16, True), (2, 7, 64, F16, True), (4, 5, 96, F32, True))
    ),
]


def kernel(*given):
    from hope_kernels.cache_write.launch import launch_cache_write

    return launch_cache_write(*given)


BOTH = pytest.mark.parametrize("form", [cache_write_reference, kernel])


def inputs(heads, group, size, dtype, bias):
    """Seven rows, two of them nobody's, that stand apart in memory; several of one slot."""
    keys, values = pools(POSITIONS, heads, size, dtype)
    slots, positions = ints(3, 0, 7, 3, 0, 8, 1), ints(0, 7, 49, 1, 0, 13, 0)
    width = (group + 2) * heads * size
    qkv = torch.randn(7, width + 3, device=DEVICE).to(dtype)[:, :width]
    frequencies = 10000.0 ** (-torch.arange(0, size, 2, device=DEVICE) / size)
    added = torch.randn(width, device=DEVICE).to(dtype) if bias else None
    return qkv, positions, slots, *rotation_tables(frequencies, POSITIONS), keys, values, added


def expected_of(qkv, positions, slots, cos, sin, keys, values, bias):
    """Queries, keys and values in fp64, by the formula of transformers' apply_rotary_pos_emb."""
    heads, size = keys.shape[2:]
    split = (qkv.double() + (0 if bias is None else bias.double())).view(len(qkv), -1, size)
    frequencies = 10000.0 ** (-torch.arange(0, size, 2, device=DEVICE, dtype=torch.float64) / size)
    angles = (positions.double()[:, None] * frequencies).repeat(1, 2)[:, None]
    turning = split[:, :-heads]
    half = torch.cat([-turning[..., size // 2 :], turning[..., : size // 2]], -1)
    turned = turning * angles.cos() + half * angles.sin()
    return turned[:, :-heads], turned[:, -heads:], split[:, -heads:]


@pytest.fixture(autouse=True)
def empties_hold_nan(monkeypatch):
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, **options: empty(*shape, **options).fill_(torch.nan))


@BOTH
@pytest.mark.parametrize(("heads", "group", "size", "dtype", "bias"), CASES)
def test_queries_turn_and_keys_and_values_reach_their_places_and_no_other(heads, group, size, dtype, bias, form):
    torch.manual_seed(0)
    given = inputs(heads, group, size, dtype, bias)
    positions, slots, keys, values = given[1], given[2], given[5], given[6]
    query, key, value = expected_of(*given)
    before = [pool.clone() for pool in (keys, values)]
    y = form(*given)
    owned = slots > 0
    assert y.dtype is dtype and y.shape == query.shape
    assert relative(y[owned], query[owned]) < TOLERANCE[dtype] and not y[~owned].any()
    place = (slots[owned].long(), positions[owned].long())
    for pool, was, expected in zip((keys, values), before, (key, value), strict=True):
        assert relative(pool[place], expected[owned]) < TOLERANCE[dtype]
        pool[place] = was[place]
        assert torch.equal(pool.nan_to_num(9.0), was.nan_to_num(9.0))


def test_the_reference_turns_as_transformers_does():
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    torch.manual_seed(0)
    qkv, positions, slots, cos, sin, keys, values, _ = inputs(1, 1, 32, F32, False)
    query, key = qkv.reshape(len(qkv), 3, 32).cpu()[:, :2].transpose(0, 1)[None].split(1, 1)
    both = [t.cpu()[positions.long().cpu()].repeat(1, 2)[None] for t in (cos, sin)]
    query, key = apply_rotary_pos_emb(query, key, *both)
    y = cache_write_reference(qkv, positions, slots, cos, sin, keys, values, None)
    owned = (slots > 0).cpu()
    torch.testing.assert_close(y.cpu()[owned], query[0].transpose(0, 1)[owned])
    place = (slots[slots > 0].long(), positions[slots > 0].long())
    torch.testing.assert_close(keys[place].cpu(), key[0].transpose(0, 1)[owned])


@pytest.mark.cuda
def test_a_place_that_does_not_exist_gives_nan_and_changes_nothing():
    qkv, _, _, cos, sin, keys, values, bias = inputs(2, 3, 64, F32, True)
    before = [pool.clone() for pool in (keys, values)]
    slots, positions = ints(-1, 9, 1, 2, 0, 0, 0), ints(0, 0, -1, POSITIONS, 0, 0, 0)
    y = cache_write(qkv, positions, slots, cos, sin, keys, values, bias)
    assert y[:4].isnan().all() and not y[4:].any()
    for pool, was in zip((keys, values), before, strict=True):
        assert torch.equal(pool.nan_to_num(9.0), was.nan_to_num(9.0))


def test_the_reference_is_differentiable_in_rows_and_bias():
    torch.manual_seed(0)
    qkv, bias = torch.randn(2, 16, dtype=torch.float64), torch.randn(16, dtype=torch.float64)
    tables = rotation_tables(torch.tensor([1.0, 0.1], dtype=torch.float64), 5)
    positions, slots = (torch.tensor(n, dtype=torch.int32) for n in ([4, 2], [1, 2]))

    def query(qkv, bias):
        keys, values = (torch.zeros(3, 5, 1, 4, dtype=torch.float64) for _ in range(2))
        return cache_write(qkv, positions, slots, *tables, keys, values, bias)

    assert torch.autograd.gradcheck(query, (qkv.requires_grad_(), bias.requires_grad_()))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"qkv": torch.zeros(2, 4, 8)}, "qkv's shape"),
        ({"qkv": torch.zeros(2, 36)}, "qkv's width"),
        ({"qkv": torch.zeros(2, 16)}, "qkv's width"),
        ({"keys": torch.zeros(3, 6, 1, 8, dtype=F16)}, "keys's dtype"),
        ({"cos": torch.zeros(6, 8)}, "cos's shape"),
        ({"sin": torch.zeros(5, 4)}, "sin's shape"),
        ({"bias": torch.zeros(8)}, "bias's shape"),
        ({"positions": torch.tensor([0, 6], dtype=torch.int32)}, "positions"),
        ({"positions": torch.tensor([0, 1])}, "positions's dtype"),
        ({"slots": torch.tensor([1, 3], dtype=torch.int32)}, "slots"),
    ],
)
def test_what_does_not_fit_is_named(change, named):
    given = {
        "qkv": torch.zeros(2, 32),
        "positions": torch.tensor([0, 5], dtype=torch.int32),
        "slots": torch.tensor([1, 2], dtype=torch.int32),
        "cos": torch.zeros(6, 4),
        "sin": torch.zeros(6, 4),
        "keys": torch.zeros(3, 6, 1, 8),
        "values": torch.zeros(3, 6, 1, 8),
        "bias": torch.zeros(32),
    }
    with pytest.raises(ValueError, match=named):
        cache_write(**given | change)
