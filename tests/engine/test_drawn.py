"""What a step drew reaches the host whole, and with few operations on tensors: each gives the interpreter away."""

from __future__ import annotations

import math

import pytest
import torch
from hope_kernels.sample.rows import Sampled
from support.planning import sequence
from support.tiny_model import tiny_model
from torch.overrides import TorchFunctionMode

from hope_serve.api import TokenLogprob
from hope_serve.engine import graphs
from hope_serve.engine.drawn import Drawn, Packed
from hope_serve.engine.pools import Pools
from hope_serve.model.serving.model import ServedModel
from hope_serve.model.serving.precision import Precision

COUNT = 5
OPERATIONS = 4
"""Of the host in a step: the slots into the graph, and its result back; on a card a copy and its room more."""


def sampled(num_top=0):
    """Row 1 was not a number; the last row is padding."""
    logprobs = torch.tensor([-0.5, math.nan, -1e-7, -30.25, -2.0, 0.0])
    return Sampled(
        token_B=torch.tensor([7, 0, 2**31 - 1, 0, 9, 0]),
        logprob_B=logprobs,
        top_ids_BN=torch.arange(6 * num_top).view(6, num_top),
        top_logprobs_BN=-torch.arange(6.0 * num_top).view(6, num_top),
        is_number_B=torch.tensor([True, False, True, True, True, True]),
    )


def test_what_was_drawn_comes_to_the_host_to_the_bit():
    sequences, given = [sequence() for _ in range(COUNT)], sampled()
    tokens = Drawn.of(sequences, Packed.of(given)).tokens()
    assert [one for one, _ in tokens] == sequences
    assert tokens[1][1] is None
    for row in (0, 2, 3, 4):
        assert tokens[row][1] == TokenLogprob(token=int(given.token_B[row]), logprob=float(given.logprob_B[row]))


def test_the_likeliest_tokens_come_with_it_as_many_as_each_sequence_wants():
    sequences = [sequence() for _ in range(COUNT)]
    for wanted, one in zip((None, 0, 3, 1, 2), sequences, strict=True):
        one.sampling = type(one.sampling)(logprobs=wanted)
    tokens = Drawn.of(sequences, Packed.of(sampled(num_top=3))).tokens()
    assert [len(drawn.top) if drawn else None for _, drawn in tokens] == [0, None, 3, 1, 2]
    assert tokens[2][1].top == ((6, -6.0), (7, -7.0), (8, -8.0))


class Counted(TorchFunctionMode):
    """Counts what is done with tensors; attributes are none of it."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, func, _types, args=(), kwargs=None):
        if getattr(func, "__name__", "") != "__get__":
            self.found.append(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def decoding(monkeypatch):
    """Pools of a tiny model, and decode graphs whose replay gives always the same."""

    class Replayed:
        def replay(self):
            pass

    def captured(self, count, **_):
        given = sampled()
        slots = torch.zeros(count, dtype=torch.int32)
        return graphs.Graph(graph=Replayed(), slots=slots, logits=None, sampled=given, packed=Packed.of(given))

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(graphs.DecodeGraphs, "captured", captured)
    model = tiny_model()
    pools = Pools(ServedModel(model, device="cpu", precision=Precision.of(model.config, "cpu")), 6)
    return graphs.DecodeGraphs(None, pools)


def drawing(*slots):
    found = [sequence() for _ in slots]
    for one, slot in zip(found, slots, strict=True):
        one.slot = slot
    return found


def test_a_step_that_draws_takes_few_operations_on_tensors(decoding):
    sequences = drawing(3, 1, 2, 5, 4)
    decoding.run(sequences, fills_chunk=False, num_top=0)
    with Counted() as counted:
        drawn = Drawn.of(sequences, decoding.run(sequences, fills_chunk=False, num_top=0))
        assert len(drawn.tokens()) == COUNT
    assert len(counted.found) <= OPERATIONS, counted.found


def test_whose_slots_are_others_than_in_the_step_before_is_known_to_the_graph(decoding):
    for slots in ((3, 1, 2, 5, 4), (3, 1, 2, 5, 6), (3, 1, 2, 5, 6), (1, 3, 2, 5, 6)):
        decoding.run(drawing(*slots), fills_chunk=True, num_top=0)
        filled = decoding._graphs[6, True].slots
        assert filled.tolist() == [*slots, 0]
