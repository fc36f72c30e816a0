"""Sampling: the reference against its definition in fp64, and the kernels against both."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hope_kernels.sample import SamplingRows, sample
from hope_kernels.sample.reference import sample_reference
from support.sample_data import RULES, SLOTS, allowed, moved, sampling_rows

# numpy, which interprets the kernels, warns where fp32 reaches infinity or NaN, as these tests mean it to.
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide by zero) encountered:RuntimeWarning")
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
STRIPS = (32, 1, 32, 1, 0)  # blocks that cut even a small vocabulary into several
LOGPROB_TOLERANCE = 4e-6  # absolute, against fp64 on the same logits
ROWS = (3, 0, 1, 13, 5, 12, 2, 0, 7, 11, 4, 9, 10, 6, 8)  # slots, shuffled, with two of padding

CASES = [  # V, logits, blocks
    pytest.param(50, F32, None, id="50"),
    pytest.param(77, F16, STRIPS, id="77-strips"),
    pytest.param(7, F32, None, id="7"),
    pytest.param(1025, F32, None, id="1025"),
    pytest.param(1000, F16, None, id="1000-fp16", marks=() if CUDA else pytest.mark.nightly),
    *(
        pytest.param(size, dtype, None, id=f"{size}-{dtype}", marks=pytest.mark.cuda)
        for size, dtype in ((32000, F32), (32000, BF16), (32768, F16), (50257, F32), (160000, F32), (151936, BF16))
    ),
]


def kernels(logits, slots, rows, *, num_top=0, blocks=None):
    from hope_kernels.sample.launch import SampleBlocks, launch_sample

    return launch_sample(logits, slots, rows, num_top, SampleBlocks(*blocks) if blocks else None)


def reference(logits, slots, rows, *, num_top=0, blocks=None):
    return sample_reference(logits, slots, rows, num_top)


BOTH = pytest.mark.parametrize("form", [reference, kernels])


def slots_of(*slots):
    return torch.tensor(slots, dtype=torch.int32, device=DEVICE)


def slot_with(vocab_size=5, **rules):
    """Two slots, the second with these rules."""
    rows = SamplingRows.fresh(2, vocab_size, max_stops=2, max_biases=2, device=DEVICE)
    for name, value in rules.items():
        getattr(rows, name)[1] = value if isinstance(value, float | int) else torch.tensor(value)
    return rows


def drawn(form, logits, count, **rules):
    """``count`` tokens of one sequence over the same logits; fewer where the kernels are interpreted."""
    count = min(count, 6) if form is kernels and not CUDA else count
    rows, given = slot_with(logits.shape[-1], **rules), logits.to(DEVICE)[None]
    return [int(form(given, slots_of(1), rows).token_B) for _ in range(count)]


def draws_among(form, logits, expected, count=200, **rules):
    """Whether the tokens drawn are the expected, all of them where enough are drawn."""
    count = min(count, 3) if form is kernels and not CUDA else count
    tokens = set(drawn(form, logits, count, **rules))
    return tokens <= expected and (tokens == expected or (form is kernels and not CUDA))


@pytest.fixture(autouse=True)
def empties_hold_nonsense(monkeypatch):
    empty = torch.empty

    def filled(*shape, **options):
        made = empty(*shape, **options)
        return made.fill_(torch.nan) if made.is_floating_point() else made.fill_(1)

    monkeypatch.setattr(torch, "empty", filled)


@pytest.mark.parametrize("form", [reference, kernels])
@pytest.mark.parametrize(("vocab_size", "dtype", "blocks"), CASES)
def test_tokens_are_what_the_definition_gives(vocab_size, dtype, blocks, form):
    torch.manual_seed(0)
    rows, slots = sampling_rows(vocab_size), torch.tensor(ROWS, dtype=torch.int32)
    live = moved(rows, DEVICE)
    for _ in range(2):
        logits = (torch.randn(len(ROWS), vocab_size) * 3).to(dtype)
        logits[:, 2 + vocab_size // 3 :: 50] = -torch.inf
        out = form(logits.to(DEVICE), slots.to(DEVICE), live, blocks=blocks)
        assert out.is_number_B.all()
        for row, slot in enumerate(ROWS):
            token = int(out.token_B[row])
            if slot == 0:
                assert token == 0
                continue
            assert token in allowed(logits[row], rows, slot), RULES[slot - 1]
            rows.counts[slot, token] += 1
            rows.position[slot] += 1
        for name, tensor in rows.tensors().items():
            same = torch.equal(getattr(live, name).cpu().nan_to_num(7.0), tensor.nan_to_num(7.0))
            assert same, name


@pytest.mark.parametrize("form", [reference, kernels])
@pytest.mark.parametrize(("vocab_size", "dtype", "blocks"), CASES)
def test_log_probabilities_are_of_the_logits_as_given(vocab_size, dtype, blocks, form):
    torch.manual_seed(0)
    rows, num_top, chosen = sampling_rows(vocab_size, device=DEVICE), min(20, vocab_size), ROWS[:4]
    logits = (torch.randn(len(chosen), vocab_size) * 3).to(dtype)
    out = form(logits.to(DEVICE), slots_of(*chosen), rows, num_top=num_top, blocks=blocks)
    ranked = logits.float().sort(descending=True, stable=True)
    for row, slot in enumerate(chosen):
        if slot == 0:
            assert not out.logprob_B[row] and not out.top_ids_BN[row].any() and not out.top_logprobs_BN[row].any()
            continue
        exact = torch.log_softmax(logits[row].double(), 0)
        assert torch.equal(out.top_ids_BN[row].cpu(), ranked.indices[row, :num_top])
        given = torch.cat([out.logprob_B[row, None], out.top_logprobs_BN[row]]).cpu()
        expected = torch.cat([exact[out.token_B[row].cpu()][None], exact[out.top_ids_BN[row].cpu()]])
        torch.testing.assert_close(given.double(), expected, rtol=0, atol=LOGPROB_TOLERANCE)


@pytest.mark.parametrize(("vocab_size", "dtype", "blocks"), CASES)
def test_a_row_depends_on_its_logits_and_slot_alone(vocab_size, dtype, blocks):
    torch.manual_seed(0)
    rows, logits = sampling_rows(vocab_size, device=DEVICE), (torch.randn(4, vocab_size) * 3).to(DEVICE, dtype)
    together = kernels(logits, slots_of(2, 6, 4, 12), moved(rows, DEVICE), num_top=1, blocks=blocks)
    for row, slot in ((1, 6), (3, 12)):
        alone = kernels(logits[row, None], slots_of(slot), moved(rows, DEVICE), num_top=1, blocks=blocks)
        for name in ("token_B", "logprob_B", "top_ids_BN", "top_logprobs_BN"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[row]), name


def test_frequencies_follow_the_softmax():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0])
    share = torch.bincount(torch.tensor(drawn(reference, logits, 1500, temperature=1.0)), minlength=5) / 1500
    assert (share - torch.softmax(logits, 0)).abs().max() < 0.04


@BOTH
@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"top_k": 1}, {1}),
        ({"top_k": 3}, {1, 3, 4}),
        ({"top_k": 4}, {1, 3, 4, 6}),
        ({"top_p": 1e-9}, {1}),
        ({"top_p": 0.5}, {1, 3}),  # .405, .246, .246, ...
        ({"top_p": 0.66}, {1, 3, 4}),
        ({"min_p": 0.5}, {1, 3, 4}),
        ({"top_k": 3, "min_p": 0.9}, {1}),
    ],
)
def test_filters_keep_exactly_so_many_and_of_equals_the_first(form, rules, expected):
    logits = torch.tensor([-2.0, 0.5, -torch.inf, 0.0, 0.0, -torch.inf, -1.9, -2.0])
    assert draws_among(form, logits, expected, temperature=1.0, **rules)


@BOTH
@pytest.mark.parametrize("temperature", [1.0, 1e30, float("inf")])
def test_of_many_equals_top_k_keeps_the_lowest_ids(form, temperature):
    logits = torch.zeros(60)
    logits[50] = 1e-6
    assert draws_among(form, logits, {0, 1, 2, 50}, temperature=temperature, top_k=4)


@BOTH
def test_logits_that_differ_less_than_their_weights_can_tell_are_still_ranked(form):
    logits = torch.full((40,), -1.0)
    logits[20:] = torch.linspace(10.0, 10.0001, 20)
    assert draws_among(form, logits, {39}, 4, temperature=1e4, top_k=1)
    assert draws_among(form, logits, {37, 38, 39}, temperature=1e4, top_k=3)


@BOTH
@pytest.mark.parametrize("temperature", [0.0, 1e-40, 9e-6, -1.0, float("nan")])
def test_tiny_temperatures_take_the_first_of_the_likeliest(form, temperature):
    logits = torch.tensor([3.0, 7.0, 7.0, -1.0, 6.9999995])
    assert draws_among(form, logits, {1}, 3, temperature=temperature)


@BOTH
@pytest.mark.parametrize(("temperature", "expected"), [(1e-5, {0, 4}), (1e38, {0, 1, 3, 4}), (torch.inf, {0, 1, 3, 4})])
def test_extreme_temperatures_draw_what_can_be_drawn(form, temperature, expected):
    logits = torch.tensor([3e38, 2.0, -torch.inf, -1e38, 3e38])
    assert draws_among(form, logits, expected, temperature=temperature)
    assert len(set(drawn(form, logits, 6, temperature=temperature))) > 1


@BOTH
def test_no_penalty_makes_a_number_out_of_reach(form):
    extremes = torch.cartesian_prod(torch.tensor([1e-40, 1e-30, 1e38, torch.inf]), torch.tensor([0.0, 3e38, -3e38]))
    rows = SamplingRows.fresh(len(extremes) + 1, 6, max_stops=1, max_biases=1, device=DEVICE)
    rows.repetition_penalty[1:], rows.presence_penalty[1:] = extremes.to(DEVICE).unbind(1)
    rows.frequency_penalty.copy_(rows.presence_penalty)
    rows.temperature[:], rows.counts[:] = 1.0, 2
    logits = torch.tensor([[3.0, -3.0, 0.0, -torch.inf, 3e38, -3e38]], device=DEVICE)
    out = form(logits.expand(len(extremes), -1), slots_of(*range(1, len(extremes) + 1)), rows)
    assert out.is_number_B.all()
    assert not (out.token_B == 3).any()


@BOTH
def test_stops_are_forbidden_until_min_tokens(form):
    logits = torch.tensor([[9.0, 8.0, 1.0]], device=DEVICE)
    rows = slot_with(3, min_tokens=2, stop_ids=[0, -1])
    assert [int(form(logits, slots_of(1), rows).token_B) for _ in range(4)] == [1, 1, 0, 0]


@BOTH
def test_biases_add_up_and_can_forbid(form):
    logits = torch.tensor([[1.0, 0.0, 5.0]], device=DEVICE)
    rows = slot_with(3, bias_ids=[1, 1], bias_values=[3.0, 3.0])
    assert int(form(logits, slots_of(1), rows).token_B) == 1
    rows.bias_ids[1], rows.bias_values[1] = torch.tensor([1, 2]), torch.tensor([0.0, -torch.inf])
    assert int(form(logits, slots_of(1), rows).token_B) == 0


@BOTH
def test_rows_that_are_no_numbers_say_so_and_leave_their_slots(form):
    torch.manual_seed(0)
    rows = sampling_rows(100, device=DEVICE)
    rows.bias_ids[:] = -1
    rows.bias_ids[5, 0], rows.bias_values[5, 0] = 7, torch.nan
    before, logits = moved(rows, DEVICE), torch.randn(6, 100, device=DEVICE)
    logits[0, 99], logits[1, 3], logits[2] = torch.nan, torch.inf, -torch.inf
    out = form(logits, slots_of(1, 2, 3, 4, 5, 0), rows, num_top=2, blocks=STRIPS)
    assert out.is_number_B.tolist() == [False, False, False, True, False, True]
    for row in (0, 1, 2, 4):
        assert out.token_B[row] == 0 and not out.top_ids_BN[row].any()
        assert out.logprob_B[row].isnan() and out.top_logprobs_BN[row].isnan().all()
    assert (rows.position - before.position).tolist() == [0, 0, 0, 0, 1, *[0] * (SLOTS - 5)]
    assert int((rows.counts != before.counts).sum()) == 1


@BOTH
def test_counts_stop_where_int16_ends(form):
    rows = slot_with(3, counts=[32766, 5, 0])
    for _ in range(3):
        form(torch.tensor([[1.0, 0.0, 0.0]], device=DEVICE), slots_of(1), rows)
    assert rows.counts[1].tolist() == [32767, 5, 0]


@BOTH
def test_both_zeros_are_equal(form):
    assert set(drawn(form, torch.tensor([-1.0, -0.0, 0.0]), 3)) == {1}
    assert set(drawn(form, torch.tensor([-1.0, -0.0, 0.0]), 5, temperature=1.0, top_k=1)) == {1}


def test_kernels_take_strided_logits_and_the_longest_lists():
    torch.manual_seed(0)
    rows = sampling_rows(60, max_stops=0, max_biases=37)
    wide = torch.randn(13, 61)
    expected = sample_reference(wide[:, :60], torch.arange(1, 14), moved(rows, "cpu"), 2)
    for logits in (wide.to(DEVICE)[:, :60], wide[:, :60].T.contiguous().to(DEVICE).T):
        out = kernels(logits, slots_of(*range(1, 14)), moved(rows, DEVICE), num_top=2)
        assert torch.equal(out.token_B.cpu(), expected.token_B)
        assert torch.equal(out.top_ids_BN.cpu(), expected.top_ids_BN)


@pytest.mark.cuda
@pytest.mark.parametrize("vocab_size", [32000, 160000])
def test_a_captured_graph_draws_what_a_cpu_draws(vocab_size):
    torch.manual_seed(0)
    rows, slots = sampling_rows(vocab_size), torch.tensor(ROWS, dtype=torch.int32)
    live, logits = moved(rows, DEVICE), torch.empty(len(ROWS), vocab_size, device=DEVICE)
    logits.zero_()
    sample(logits, slots.to(DEVICE), moved(rows, DEVICE), num_top=5)
    place, graph = slots.to(DEVICE), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = sample(logits, place, live, num_top=5)
    for name, tensor in rows.tensors().items():
        getattr(live, name).copy_(tensor)
    for _ in range(5):
        step = torch.randn(len(ROWS), vocab_size) * 3
        logits.copy_(step)
        graph.replay()
        for row, slot in enumerate(ROWS):
            token = int(out.token_B[row])
            if slot:
                assert token in allowed(step[row], rows, slot)
                rows.counts[slot, token] += 1
                rows.position[slot] += 1


def test_rows_that_take_the_likeliest_get_together_what_each_gets_alone():
    """Ties, extremes, no numbers at all and neighbours that are drawn by lot: the same tokens, numbers and counts."""
    torch.manual_seed(0)
    logits = torch.randn(6, 9)
    logits[1, 4] = logits[1, 7] = 9.0
    logits[2] = float("-inf")
    logits[3, 5] = float("nan")
    logits[4, :8] = float("-inf")
    rows = SamplingRows.fresh(7, 9, max_stops=2, max_biases=2)
    rows.temperature[6], rows.counts[1, int(logits[0].argmax())] = 1.0, 32767
    alone = replace(rows, **{name: tensor.clone() for name, tensor in rows.tensors().items()})
    slots = torch.tensor([1, 2, 3, 4, 5, 6])
    together = sample_reference(logits, slots, rows, 3)
    rows_alone = [sample_reference(logits[i : i + 1], slots[i : i + 1], alone, 3) for i in range(6)]
    for name in ("token_B", "logprob_B", "top_ids_BN", "top_logprobs_BN", "is_number_B"):
        one_by_one = torch.cat([getattr(one, name) for one in rows_alone])
        assert torch.equal(getattr(together, name).nan_to_num(7), one_by_one.nan_to_num(7)), name
    for name, tensor in rows.tensors().items():
        assert torch.equal(tensor, alone.tensors()[name]), name
    assert together.is_number_B.tolist() == [True, True, False, False, True, True]
    assert together.token_B[:5].tolist() == [int(logits[0].argmax()), 4, 0, 0, 8]


@pytest.mark.cuda
def test_a_slot_that_does_not_exist_is_no_number():
    out = sample(torch.zeros(2, 9, device="cuda"), slots_of(1, 2), slot_with(9), num_top=1)
    assert out.is_number_B.tolist() == [True, False]
    assert out.token_B[1] == 0 and out.logprob_B[1].isnan() and out.top_logprobs_BN[1].isnan()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"logits": torch.zeros(5)}, "logits_BV's shape"),
        ({"logits": torch.zeros(2, 5, dtype=torch.float64)}, "logits_BV's dtype"),
        ({"logits": torch.zeros(2, 6)}, "rows.counts's shape"),
        ({"slots": torch.tensor([1, 2])}, "slots"),
        ({"slots": torch.tensor([1, 1])}, "slots"),
        ({"slots": torch.tensor([1.0, 0.0])}, "slots' dtype"),
        ({"num_top": 6}, "num_top"),
        ({"temperature": torch.zeros(2).half()}, "rows.temperature's dtype"),
        ({"seed": torch.zeros(2, dtype=torch.int32)}, "rows.seed's dtype"),
        ({"bias_values": torch.zeros(2, 1)}, "rows.bias_values's shape"),
        ({"top_k": torch.zeros(4, dtype=torch.int32)[::2]}, "rows.top_k's strides"),
    ],
)
def test_what_does_not_fit_is_named(change, named):
    rows = SamplingRows.fresh(2, 5, max_stops=2, max_biases=2)
    logits, slots, num_top = (
        change.pop(name, default)
        for name, default in (("logits", torch.zeros(2, 5)), ("slots", torch.tensor([1, 0])), ("num_top", 0))
    )
    with pytest.raises(ValueError, match=named):
        sample(logits, slots, replace(rows, **change), num_top=num_top)
