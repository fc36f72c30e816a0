"""The levels' optimizers as pure functions, each against its equations written out."""

from __future__ import annotations

import msgspec
import pytest
import torch
from support.optim_oracle import ORACLES

from hope_serve.optim import (
    DeepMomentum,
    DeltaMomentum,
    GradientDescent,
    Momentum,
    MultiScaleMomentum,
    TaggedOptimizer,
    optimizer_of_word,
)
from hope_serve.optim.dmgd import cosines
from hope_serve.optim.matrices import newton_schulz

RULES = (
    GradientDescent(),
    Momentum(beta=0.7),
    DeltaMomentum(beta=0.8, erase=0.6),
    DeltaMomentum(beta=0.8, keys="raw"),
    DeepMomentum(hidden_size=3, beta=0.8, inner_rate=0.4),
    DeepMomentum(hidden_size=9, inner_rate=1.0),
    MultiScaleMomentum(frequency=3, beta_square=0.9),
    MultiScaleMomentum(frequency=1, slow_weight=2.0, steps=2),
)
EVERY_RULE = pytest.mark.parametrize("rule", RULES, ids=repr)
BOUNDED = pytest.mark.parametrize("rule", [r for r in RULES if getattr(r, "keys", "") != "raw"], ids=repr)
SHAPES = pytest.mark.parametrize("shape", [(4, 3), (3, 5), (6, 1)], ids=str)
RATE, DECAY = 0.1, 0.9


def fresh(rule, shape, *batch, dtype=torch.float64):
    slots = tuple(torch.zeros(*batch, *slot, dtype=dtype) for slot in rule.slot_shapes(shape))
    return torch.zeros(*batch, *shape, dtype=dtype), slots


def stepped(rule, delta, gradient, slots, *, rate=RATE, decay=DECAY):
    numbers = {"rate": torch.tensor(rate, dtype=delta.dtype), "decay": torch.tensor(decay, dtype=delta.dtype)}
    return rule.update(delta, gradient, slots, **numbers)


def walk(rule, gradients):
    """delta and slots after every gradient, [..., rows, columns] each."""
    first = gradients[0]
    delta, slots = fresh(rule, tuple(first.shape[-2:]), *first.shape[:-2], dtype=first.dtype)
    for gradient in gradients:
        delta, slots = stepped(rule, delta, gradient, slots)
        yield delta, slots


def gradients(shape, count=8, *batch):
    torch.manual_seed(2)
    return torch.randn(count, *batch, *shape, dtype=torch.float64) * 0.6


def tag(rule):
    return type(rule).__struct_config__.tag


@SHAPES
@EVERY_RULE
def test_rule_follows_its_equations_written_out(rule, shape):
    """Several sequences and layers at once, against one matrix at a time; fp64."""
    given = gradients(shape, 8, 2, 2)
    fields = msgspec.structs.asdict(rule)
    found = [delta for delta, _ in walk(rule, given)]
    for b in range(2):
        for layer in range(2):
            oracle = ORACLES[tag(rule)](*shape, rate=RATE, decay=DECAY, **fields)
            for chunk, delta in zip(given, found, strict=True):
                oracle.step(chunk[b, layer].tolist())
                tolerance = 1e-8 if tag(rule) == "dmgd" else 1e-10  # dmgd's oracle differentiates by nudging
                expected = torch.tensor(oracle.delta, dtype=torch.float64)
                assert (delta[b, layer] - expected).abs().max() < tolerance * (1 + expected.abs().max())


@EVERY_RULE
def test_no_gradient_only_decays(rule):
    delta, slots = fresh(rule, (4, 3))
    delta, _ = stepped(rule, delta + 1, torch.zeros(4, 3, dtype=torch.float64), slots)
    assert torch.allclose(delta, torch.full((4, 3), DECAY, dtype=torch.float64))


@BOUNDED
def test_twice_the_gradient_is_twice_the_step(rule):
    """So a rate, a learning_rate_scale and the number of tokens in a chunk mean the same with every rule."""
    given = gradients((4, 3))
    for (once, _), (twice, _) in zip(walk(rule, given), walk(rule, given * 2), strict=True):
        assert torch.allclose(once * 2, twice, rtol=1e-10)


@EVERY_RULE
def test_sequences_of_a_batch_do_not_touch_wherever_they_stand(rule):
    """One of them is two chunks ahead of the other, which for m3 is another place in its slow memory's round."""
    one, other = gradients((4, 3), 7), gradients((4, 3), 5) * 0.3
    alone = [list(walk(rule, g)) for g in (one, other)]
    delta, slots = alone[0][1]
    start, empty = fresh(rule, (4, 3))
    delta, slots = torch.stack([delta, start]), tuple(torch.stack(s) for s in zip(slots, empty, strict=True))
    for chunk in range(5):
        delta, slots = stepped(rule, delta, torch.stack([one[chunk + 2], other[chunk]]), slots)
    for i, (expected, kept) in enumerate((alone[0][6], alone[1][4])):
        assert torch.allclose(delta[i], expected, rtol=1e-12, atol=1e-14)
        assert all(torch.allclose(a[i], b, rtol=1e-12, atol=1e-14) for a, b in zip(slots, kept, strict=True))


@EVERY_RULE
def test_update_changes_nothing_it_was_given(rule):
    *_, (delta, slots) = walk(rule, gradients((4, 3), 2))
    gradient = gradients((4, 3), 1)[0]
    before = [t.clone() for t in (delta, gradient, *slots)]
    stepped(rule, delta, gradient, slots)
    assert all(torch.equal(a, b) for a, b in zip(before, (delta, gradient, *slots), strict=True))


@EVERY_RULE
def test_an_outer_loss_reaches_gradients_rates_and_decays(rule):
    def two_steps(first, second, rate, decay):
        delta, slots = fresh(rule, (3, 2))
        for gradient in (first, second):
            delta, slots = rule.update(delta, gradient, slots, rate=rate, decay=decay)
        return delta

    given = [g.requires_grad_() for g in gradients((3, 2), 2)]
    numbers = [torch.tensor(n, dtype=torch.float64, requires_grad=True) for n in (RATE, DECAY)]
    assert torch.autograd.gradcheck(two_steps, (*given, *numbers), atol=1e-5)


@EVERY_RULE
def test_the_derivative_at_a_gradient_of_zero_is_a_number(rule):
    """As of a level that was told not to learn."""
    delta, slots = fresh(rule, (4, 3), dtype=torch.float32)
    gradient = torch.zeros(4, 3, requires_grad=True)
    for _ in range(2):
        delta, slots = stepped(rule, delta, gradient, slots)
    (slope,) = torch.autograd.grad(delta.sum() + sum(s.sum() for s in slots), gradient)
    assert torch.isfinite(slope).all()


@BOUNDED
def test_four_thousand_chunks_stay_bounded(rule):
    torch.manual_seed(0)
    delta, slots = fresh(rule, (4, 3), dtype=torch.float32)
    same = torch.randn(4, 3)
    for chunk in range(4_000):
        gradient = same if chunk < 2_000 else torch.randn(4, 3) * 10 ** (chunk % 7 - 3)
        delta, slots = stepped(rule, delta, gradient, slots, rate=0.01)
        if chunk % 100 == 0:
            assert all(t.abs().max() < 1e6 for t in (delta, *slots))


def test_momentum_of_zero_is_gradient_descent_bit_for_bit():
    given = gradients((3, 2))
    for (plain, _), (without, _) in zip(walk(GradientDescent(), given), walk(Momentum(beta=0.0), given), strict=True):
        assert torch.equal(plain, without)


def test_delta_momentum_that_erases_nothing_is_momentum():
    given = gradients((3, 2))
    pairs = zip(walk(Momentum(beta=0.8), given), walk(DeltaMomentum(beta=0.8, erase=0), given), strict=True)
    assert all(torch.allclose(a, b, rtol=1e-13) for (a, _), (b, _) in pairs)


def test_delta_momentum_forgets_along_the_gradient_and_nowhere_else():
    """A key of one column: that column of m is rewritten, the others keep beta of themselves."""
    m = torch.ones(3, 2)
    gradient = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 0.0]])
    _, (after,) = stepped(DeltaMomentum(beta=0.9, erase=0.9), torch.zeros(3, 2), gradient, (m,))
    assert torch.allclose(after, torch.tensor([[0.0, 0.9], [5.0, 0.9], [0.0, 0.9]]), atol=1e-6)


def test_untaught_deep_momentum_takes_the_step_of_gradient_descent_and_then_amplifies_what_comes_again():
    again, new = torch.zeros(4, 8, dtype=torch.float64), torch.zeros(4, 8, dtype=torch.float64)
    again[:, 2], new[:, 5] = 1.0, 1.0
    rule = DeepMomentum(hidden_size=8, inner_rate=0.2)
    delta, slots = fresh(rule, (4, 8))
    still = DeepMomentum(hidden_size=8, inner_rate=0.0)
    assert torch.allclose(stepped(still, delta, again, slots)[0], -RATE * again, rtol=1e-12)
    for _ in range(12):
        _, slots = stepped(rule, delta, again, slots)
    known, unknown = (stepped(rule, delta, g, slots)[0].norm() for g in (again, new))
    assert known > 1.3 * unknown


def test_deep_momentums_first_matrix_has_orthonormal_rows_on_every_width():
    for width in (4, 16, 33):
        rows = cosines(width, torch.zeros(1, width, dtype=torch.float64))
        assert torch.allclose(rows @ rows.mT, torch.eye(width, dtype=torch.float64), atol=1e-12)


def test_slow_momentum_moves_every_frequency_chunks_by_what_they_summed_to():
    rule, given = MultiScaleMomentum(frequency=3, beta_slow=0.5), gradients((3, 2), 7)
    slow, counts = zip(*((slots[2], float(slots[4])) for _, slots in walk(rule, given)), strict=True)
    first, second = given[:3].sum(0), given[3:6].sum(0)
    assert counts == (1, 2, 0, 1, 2, 0, 1)
    assert not slow[0].any() and not slow[1].any()
    assert all(torch.allclose(s, first) for s in slow[2:5])
    assert all(torch.allclose(s, 0.5 * first + second) for s in slow[5:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounds_of_the_greatest_frequency_are_counted_in_every_dtype_of_memory(dtype):
    rule = MultiScaleMomentum(frequency=256)
    delta, slots = fresh(rule, (2, 2), dtype=torch.float32)
    moved = []
    for _ in range(512):
        _, slots = stepped(rule, delta, torch.ones(2, 2), slots)
        slots = tuple(s.to(dtype).float() for s in slots)
        moved.append(float(slots[4]) == 0)
    assert [i for i, full in enumerate(moved, 1) if full] == [256, 512]


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)], ids=str)
def test_newton_schulz_makes_matrices_nearly_orthogonal_and_minds_no_factor(shape):
    torch.manual_seed(1)
    matrix = torch.randn(3, *shape, dtype=torch.float64)
    found = newton_schulz(matrix, 6)
    values = torch.linalg.svdvals(found)
    assert 0.6 < values.min() and values.max() < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    assert (found - u @ v).norm() < 0.35 * (u @ v).norm()
    assert torch.allclose(newton_schulz(matrix * 1e-9, 6), found, rtol=1e-9)
    assert not newton_schulz(torch.zeros(2, 3), 5).any()


def test_kernel_rules_are_those_of_the_kernel():
    assert [rule.kernel and rule.kernel.beta for rule in RULES[:2]] == [None, 0.7]
    assert RULES[0].kernel is not None
    assert all(rule.kernel is None for rule in RULES[2:])


@EVERY_RULE
def test_tagged_form_is_read_back_as_it_was_written(rule):
    written = msgspec.json.encode(rule)
    assert msgspec.json.decode(written)["rule"] == tag(rule)
    assert msgspec.json.decode(written, type=TaggedOptimizer) == rule


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"rule": "momentum", "beta": 1.0}, r"momentum.beta is 1.0; it must lie in \[0, 1\)"),
        ({"rule": "delta_momentum", "beta": -0.1}, r"delta_momentum.beta is -0.1; it must lie in \[0, 1\)"),
        ({"rule": "delta_momentum", "erase": 1.5}, r"delta_momentum.erase is 1.5; it must lie in \[0, 1\]"),
        ({"rule": "delta_momentum", "keys": "odd"}, "Invalid enum value 'odd' - at `[$].keys`"),
        ({"rule": "dmgd", "hidden_size": 0}, r"dmgd.hidden_size is 0; it must lie in \[1, 65536\]"),
        ({"rule": "dmgd", "beta": 1}, r"dmgd.beta is 1.0; it must lie in \[0, 1\)"),
        ({"rule": "dmgd", "inner_rate": -1}, r"dmgd.inner_rate is -1.0; it must lie in \[0, 1\]"),
        ({"rule": "m3", "beta_fast": 1}, "m3.beta_fast is 1.0"),
        ({"rule": "m3", "beta_square": 1}, "m3.beta_square is 1.0"),
        ({"rule": "m3", "beta_slow": 1}, "m3.beta_slow is 1.0"),
        ({"rule": "m3", "slow_weight": -1}, r"m3.slow_weight is -1.0; it must lie in \[0, 100.0\]"),
        ({"rule": "m3", "frequency": 257}, r"m3.frequency is 257; it must lie in \[1, 256\]"),
        ({"rule": "m3", "steps": 0}, r"m3.steps is 0; it must lie in \[1, 32\]"),
        ({"rule": "m3", "damping": 0}, r"m3.damping is 0.0; it must lie in \[1e-06, 1\]"),
        ({"rule": "m3", "momentum": 0.5}, "unknown field `momentum`"),
        ({"rule": "adam"}, "Invalid value 'adam'"),
    ],
)
def test_hyperparameters_beyond_their_limits_are_refused_by_field(rule, message):
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.json.decode(msgspec.json.encode(rule), type=TaggedOptimizer)


def test_words_of_older_configs_stand_for_their_rules():
    assert optimizer_of_word("gd", momentum=0.3) == GradientDescent()
    assert optimizer_of_word("momentum", momentum=0.3) == Momentum(beta=0.3)
    with pytest.raises(ValueError, match="'adam' is unknown; write gd, momentum, or an object"):
        optimizer_of_word("adam", momentum=0.9)
