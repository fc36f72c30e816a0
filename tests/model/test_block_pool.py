"""Memories beside a cache of blocks: every row reads its own request's B, whatever its blocks held before."""

from __future__ import annotations

import pytest
import torch

from hope_serve.model.serving.block_pool import BlockPool, Rows

LAYERS, D, R = 3, 8, 4


def made(num_slots=4, num_blocks=20):
    pool = BlockPool((num_slots + 1, LAYERS, D, R), torch.float32)
    pool.prepare(num_blocks)
    return pool


def content(seed):
    return torch.randn(LAYERS, D, R, generator=torch.Generator().manual_seed(seed))


def rows_of(seed, count):
    return torch.randn(count, D + R, generator=torch.Generator().manual_seed(seed))


def wanted(rows, b):
    return rows[:, :D] + rows[:, D:] @ b.T


@pytest.mark.parametrize("layer", range(LAYERS))
def test_every_sequence_reads_the_memory_of_its_first_block(layer):
    pool, mine, others = made(), content(1), content(2)
    pool.fill([2, 1], [7, 11], [mine, others])
    slots = pool.slots_of(torch.tensor([[11, 3, 0], [7, 4, 5]]))
    rows = rows_of(0, 2)
    got = pool.moved(layer, rows, Rows(2, slots, None))
    assert torch.allclose(got[0], wanted(rows[:1], others[layer])[0])
    assert torch.allclose(got[1], wanted(rows[1:], mine[layer])[0])


def test_runs_of_rows_read_it_too_and_rows_of_nobody_stay():
    pool, mine = made(), content(1)
    pool.fill([3, 1], [5, 6], [mine, None])
    slots = pool.slots_of(torch.tensor([[5], [6]]))
    rows = rows_of(0, 9)
    got = pool.moved(1, rows, Rows(7, slots, torch.tensor([0, 4, 7], dtype=torch.int32)))
    assert torch.allclose(got[:4], wanted(rows[:4], mine[1]))
    assert torch.equal(got[4:7], rows[4:7, :D])
    assert torch.equal(got[7:], rows[7:, :D])


def test_padding_reads_nothing():
    pool = made()
    pool.fill([1], [9], [content(1)])
    rows = rows_of(0, 1)
    assert torch.equal(pool.moved(0, rows, Rows(1, pool.slots_of(torch.tensor([[0]])), None)), rows[:, :D])


def test_a_slot_that_was_another_users_shows_nothing_of_it():
    pool = made()
    pool.fill([1], [9], [content(1)])
    pool.fill([1], [4], [None])
    rows = rows_of(0, 1)
    assert torch.equal(pool.moved(2, rows, Rows(1, pool.slots_of(torch.tensor([[4]])), None)), rows[:, :D])


def test_a_block_that_was_another_users_names_its_new_owner():
    pool, new = made(), content(2)
    pool.fill([1], [9], [content(1)])
    pool.fill([2], [9], [new])
    rows = rows_of(0, 1)
    got = pool.moved(0, rows, Rows(1, pool.slots_of(torch.tensor([[9, 8]])), None))
    assert torch.allclose(got, wanted(rows, new[0]))


def test_before_anybody_came_rows_are_as_they_are():
    rows = rows_of(0, 3)
    assert torch.equal(made().moved(0, rows, None), rows[:, :D])
