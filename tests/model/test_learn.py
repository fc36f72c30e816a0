"""Online learning of CMS levels: which gradient, on which tokens, and when it becomes an update."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from support.tiny_model import tiny_config, tiny_model

from hope_serve.model.cadence import Cadence
from hope_serve.model.cms import Delta
from hope_serve.model.cms_state import CmsState
from hope_serve.model.config import LevelConfig
from hope_serve.model.learn import accumulate, fire, level_rules, read_deltas, segment_gradient

EXACT = 1e-12
BOTH_FORMS = pytest.mark.parametrize("form", ["subspace", "full"])


def make_model(form: str = "subspace", **changes):
    levels = tuple(
        LevelConfig(
            hidden_size=24, chunk_size=size, delta=form, rank=4 if form == "subspace" else 0, learning_rate=0.05
        )
        for size in (16, 32)
    )
    return tiny_model(dtype=torch.float64, levels=(*levels, LevelConfig(hidden_size=24)), **changes)


def rows(model, length=17, batch=2):
    torch.manual_seed(3)
    return torch.randint(0, model.config.vocab_size, (batch, length))


def deltas_of(cms):
    return tuple(level.delta for level in cms.levels)


def random_cms(model, batch=2):
    torch.manual_seed(4)
    return CmsState.fresh(model, batch).map(lambda t: torch.randn_like(t) * 0.1)


@BOTH_FORMS
def test_gradient_equals_autograd_through_the_whole_dense_model(form):
    """Against autograd on the summed loss as a function of full-size weight changes, level by level."""
    model = make_model(form)
    text, cms = rows(model), random_cms(model)
    segment = segment_gradient(model, text[:, :-1], text[:, 1:], model.fresh_state(2), deltas_of(cms))
    for index, got in enumerate(segment.gradients):
        for b in range(2):
            expected = dense_gradient(model, text[b], cms, index, b)
            for layer in range(model.config.num_layers):
                module = model.blocks[layer].levels[index]
                for side, name in enumerate(("inner", "outer")):
                    whole = expected[layer][side]
                    if form == "subspace":
                        whole = whole @ getattr(module, f"{name}_projection").mT
                    assert (got[side][b, layer] - whole).abs().max() < EXACT


def dense_gradient(model, text, cms, index, b):
    """dL/dW of one level for sequence b, its delta folded into the shared weights of a copy."""
    copy = deepcopy(model)
    for i, level in enumerate(cms.levels):
        for layer, block in enumerate(copy.blocks):
            module = block.levels[i]
            for side, name in enumerate(("inner", "outer")):
                change = level.delta[side][b, layer]
                if module.config.delta == "subspace":
                    change = change @ getattr(module, f"{name}_projection")
                getattr(module, name).data += change
    leaves = [
        [block.levels[index].inner.requires_grad_(), block.levels[index].outer.requires_grad_()]
        for block in copy.blocks
    ]
    hidden, _ = copy(text[None, :-1], copy.fresh_state(1))
    nll = F.cross_entropy(copy.logits(hidden)[0], text[1:], reduction="none")
    (nll * copy.learning_weight(hidden)[0].detach()).sum().backward()
    return [[leaf.grad for leaf in pair] for pair in leaves]


def test_only_masked_in_positions_teach():
    model = make_model()
    text, cms = rows(model), CmsState.fresh(model, 2)
    mask = torch.zeros(2, 16)
    mask[:, :9] = 1
    masked = segment_gradient(model, text[:, :-1], text[:, 1:], model.fresh_state(2), deltas_of(cms), mask=mask)
    short = segment_gradient(model, text[:, :9], text[:, 1:10], model.fresh_state(2), deltas_of(cms))
    for a, b in zip(masked.gradients, short.gradients, strict=True):
        assert all((x - y).abs().max() < EXACT for x, y in zip(a, b, strict=True))


def test_gradient_is_a_sum_so_that_a_rate_does_not_depend_on_the_cut():
    model = make_model()
    text, cms = rows(model, 17), CmsState.fresh(model, 2)
    state = model.fresh_state(2)
    first = segment_gradient(model, text[:, :8], text[:, 1:9], state, deltas_of(cms))
    second = segment_gradient(model, text[:, 8:16], text[:, 9:17], first.state, deltas_of(cms), consumed=8)
    nll = segment_gradient(model, text[:, :-1], text[:, 1:], state, deltas_of(cms)).nll
    assert torch.allclose(torch.cat([first.nll, second.nll], 1), nll, atol=EXACT)


def test_levels_fire_on_tokens_not_on_calls():
    cadence, fired = Cadence(chunk_sizes=(16, 32)), []
    for end in (5, 16, 23, 32, 33, 48, 64):
        while cadence.tokens < end:
            cadence = cadence.after(min(end - cadence.tokens, cadence.room()))
            fired.append(cadence.fired())
    assert cadence.tokens == 64
    assert sum(f[0] for f in fired) == 4 and sum(f[1] for f in fired) == 2
    assert cadence.updates() == (4, 2)


def test_fired_level_follows_its_rule_and_opens_an_empty_chunk():
    model = make_model()
    cms = random_cms(model)
    after = fire(level_rules(model), cms, (True, False))
    rate = torch.stack([b.levels[0].log_rate.exp() for b in model.blocks])[:, :, None, None]
    decay = torch.stack([b.levels[0].decay_logit.sigmoid() for b in model.blocks])[:, :, None, None]
    for side in range(2):
        expected = decay[:, side] * cms.levels[0].delta[side] - rate[:, side] * cms.levels[0].gradient[side]
        assert (after.levels[0].delta[side] - expected).abs().max() < EXACT
        assert not after.levels[0].gradient[side].any()
    assert after.levels[1] is cms.levels[1]


def test_open_chunk_reads_as_if_it_ended_here_and_goes_on_collecting():
    model = make_model()
    cms = random_cms(model)
    open_cadence, closed = Cadence(chunk_sizes=(16, 32), tokens=20), Cadence(chunk_sizes=(16, 32), tokens=32)
    fired = fire(level_rules(model), cms, (True, True))
    for read, level in zip(read_deltas(level_rules(model), cms, open_cadence), fired.levels, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(read, level.delta, strict=True))
    for read, level in zip(read_deltas(level_rules(model), cms, closed), cms.levels, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(read, level.delta, strict=True))


def test_rate_of_zero_is_the_base_model_bit_for_bit():
    model = make_model()
    for block in model.blocks:
        for level in block.levels[:2]:
            level.log_rate.fill_(-torch.inf)
    text, cms = rows(model), CmsState.fresh(model, 2)
    segment = segment_gradient(model, text[:, :-1], text[:, 1:], model.fresh_state(2), deltas_of(cms))
    cms = fire(level_rules(model), accumulate(cms, segment.gradients), (True, True))
    base, _ = model(text, model.fresh_state(2))
    taught, _ = model(text, model.fresh_state(2), deltas=deltas_of(cms))
    assert torch.equal(base, taught)


def test_two_learners_in_one_batch_do_not_touch():
    model = make_model()
    text, cms = rows(model), CmsState.fresh(model, 2)
    both = segment_gradient(model, text[:, :-1], text[:, 1:], model.fresh_state(2), deltas_of(cms))
    text[1] = (text[1] + 5) % model.config.vocab_size
    other = segment_gradient(model, text[:, :-1], text[:, 1:], model.fresh_state(2), deltas_of(cms))
    for a, b in zip(both.gradients, other.gradients, strict=True):
        assert all(torch.equal(x[0], y[0]) for x, y in zip(a, b, strict=True))


@BOTH_FORMS
def test_what_was_learned_lowers_the_loss_in_a_fresh_context(form):
    model = make_model(form)
    text, cms = rows(model, 33, batch=1), CmsState.fresh(model, 1)
    for _ in range(8):
        segment = segment_gradient(model, text[:, :-1], text[:, 1:], model.fresh_state(1), deltas_of(cms))
        cms = fire(level_rules(model), accumulate(cms, segment.gradients), (True, True))
    base = segment_gradient(model, text[:, :-1], text[:, 1:], model.fresh_state(1), deltas_of(CmsState.fresh(model, 1)))
    taught = segment_gradient(model, text[:, :-1], text[:, 1:], model.fresh_state(1), deltas_of(cms))
    assert taught.nll.mean() < base.nll.mean() - 0.1


def test_outer_gradient_reaches_every_parameter_through_the_update():
    model = make_model().requires_grad_()
    text, cms = rows(model), CmsState.fresh(model, 2)
    segment = segment_gradient(
        model, text[:, :-1], text[:, 1:], model.fresh_state(2), deltas_of(cms), create_graph=True
    )
    taught = fire(level_rules(model), accumulate(cms, segment.gradients), (True, True))
    hidden, _ = model(text, model.fresh_state(2), deltas=deltas_of(taught))
    F.cross_entropy(model.logits(hidden[:, :-1]).flatten(0, 1), text[:, 1:].flatten()).backward()
    for name, parameter in model.named_parameters():
        if not name.endswith("decay_logit"):  # there was nothing yet to decay
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_cms_state_keeps_its_names_through_a_round_trip():
    model = tiny_model()
    cms = CmsState.fresh(model, 1)
    again = CmsState.of(model.config, cms.tensors())
    assert list(again.tensors()) == list(cms.tensors())
    assert isinstance(again.levels[1].slots[0], Delta)
    assert tiny_config().online_levels == (0, 1)


def test_chunks_that_close_with_a_lesson_end_there_and_the_next_begins_whole():
    cadence, ends = Cadence(chunk_sizes=(16, 32), closes=True), []
    for count in (5, 16, 3):
        cadence = cadence.after(count).at_end()
        ends.append((cadence.tokens, cadence.skipped, cadence.updates(), cadence.fired(), cadence.room()))
    assert ends == [
        (5, 27, (2, 1), (True, True), 16),
        (21, 43, (4, 2), (True, True), 16),
        (24, 72, (6, 3), (True, True), 16),
    ]


def test_chunks_of_other_models_go_on_from_lesson_to_lesson():
    cadence = Cadence(chunk_sizes=(16, 32)).after(5).at_end()
    assert (cadence.skipped, cadence.room(), cadence.open()) == (0, 11, (True, True))
