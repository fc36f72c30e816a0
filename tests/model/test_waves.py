"""Passes in parts: how a batch is cut, and that its rows come out as from one part."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.served import Served
from support.tiny_model import tiny_model

from hope_serve.model.serving.batch import Batch
from hope_serve.model.serving.waves import MOST_PARTS, parts_of

CUDA = torch.cuda.is_available()


def batch_of(lengths):
    total = sum(lengths)
    return Batch(
        tokens=torch.arange(total),
        slots=torch.arange(1, len(lengths) + 1, dtype=torch.int32),
        starts=torch.tensor([0, *lengths]).cumsum(0).to(torch.int32),
        memories=torch.arange(11, len(lengths) + 11, dtype=torch.int32),
        lengths=tuple(lengths),
    )


@given(st.lists(st.integers(1, 300), min_size=1, max_size=9), st.integers(1, 200), st.sampled_from([1, 8, 64]))
def test_parts_hold_every_row_once_and_say_who_goes_on(lengths, part_rows, grain):
    batch = batch_of(lengths)
    parts = parts_of(batch, part_rows=part_rows, grain=grain)
    assert torch.equal(torch.cat([part.batch.tokens for part in parts]), batch.tokens)
    seen = dict.fromkeys(batch.slots.tolist(), 0)
    before = None
    for part, _ in parts:
        sizes = part.starts.diff().tolist()
        assert tuple(sizes) == part.lengths and min(sizes) > 0 and part.starts[0] == 0
        for slot, memory, size in zip(part.slots.tolist(), part.memories.tolist(), sizes, strict=True):
            assert memory == slot + 10 and seen[slot] % grain == 0
            seen[slot] += size
    assert [seen[slot] for slot in batch.slots.tolist()] == lengths
    for part, follows in parts:
        assert follows == (before is not None and part.slots[0] == before)
        before = part.slots[-1]


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=9))
def test_parts_are_few_and_none_but_the_last_is_small(lengths):
    parts = parts_of(batch_of(lengths), part_rows=256, grain=64)
    assert len(parts) <= MOST_PARTS + 1
    assert all(len(part.batch.tokens) > 256 - 64 for part in parts[:-1])


def test_a_batch_whose_lengths_nobody_knows_stays_whole():
    batch = Batch(tokens=torch.arange(9), slots=torch.tensor([1], dtype=torch.int32))
    assert parts_of(batch, part_rows=2, grain=1) == [(batch, False)]


@torch.no_grad()
@pytest.mark.parametrize("lengths", [(70,), (9, 41, 3, 30), (16, 16, 16, 16)])
def test_rows_and_state_come_out_as_from_one_part(lengths):
    model = tiny_model(dtype=torch.float64)
    texts = {slot: torch.randint(0, model.config.vocab_size, (n + 5,)) for slot, n in enumerate(lengths, 1)}
    whole, parts = (Served(model, len(lengths), part_rows=rows) for rows in (0, 16))
    for begin, end in ((0, 5), (5, None)):  # the second time from inside a chunk
        runs = {slot: ids[begin:end] for slot, ids in texts.items()}
        expected, given = whole.feed(runs), parts.feed(runs)
        for slot, rows in given.items():
            assert (rows - expected[slot]).abs().max() < 1e-10
    for name, view in parts.rows.views.items():
        assert (view[1:] - whole.rows.views[name][1:]).abs().max() < 1e-10, name


def test_a_pass_that_is_differentiated_stays_whole():
    served = Served(tiny_model(dtype=torch.float64), 1, part_rows=4)
    begun = []
    served.model.waves.run(batch_of((32,)), lambda part: begun.append(part) or ended(), 0)
    assert [len(part.tokens) for part in begun] == [32]


def ended():
    return torch.zeros(1)
    yield


@pytest.mark.cuda
@torch.no_grad()
@pytest.mark.parametrize("lengths", [(8192,), (3000, 1, 5000, 700)])
def test_parts_on_streams_of_their_own_give_what_one_part_gives(lengths):
    torch.manual_seed(0)
    model = tiny_model()
    texts = {slot: torch.randint(0, model.config.vocab_size, (n,)) for slot, n in enumerate(lengths, 1)}
    whole, parts = (Served(model, len(lengths), device="cuda", part_rows=rows) for rows in (0, 1024))
    for _ in range(3):  # memory is used again
        expected, given = whole.feed(texts), parts.feed(texts)
        for slot, rows in given.items():
            error = (rows - expected[slot]).norm() / expected[slot].norm()
            assert error < 5e-2  # chunks begin elsewhere, and products are of fp16 numbers
