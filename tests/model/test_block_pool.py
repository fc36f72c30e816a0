"""Memories beside a cache of blocks: every row reads its own request's B, whatever its blocks held before."""

from __future__ import annotations

import pytest
import torch
from support.vllm_card import Blind, Graph, HostLooked, delta_without_looking

from hope_serve.model.serving import block_pool
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


@pytest.mark.parametrize("starts", [None, torch.tensor([0, 2, 2, 3], dtype=torch.int32)])
def test_while_a_cache_is_being_sized_rows_of_its_block_0_are_as_they_are(starts):
    pool, rows = BlockPool((5, LAYERS, D, R), torch.float32), rows_of(0, 3)
    slots = pool.slots_of(torch.zeros(3, 6, dtype=torch.int32))
    assert torch.equal(pool.moved(1, rows, Rows(3, slots, starts)), rows[:, :D])


def test_rows_of_nobody_stand_behind_those_that_read_a_memory():
    pool, mine, others = made(), content(1), content(2)
    pool.fill([2, 1], [7, 11], [mine, others])
    rows, slots = rows_of(0, 4), pool.slots_of(torch.tensor([[11], [7], [0], [0]], dtype=torch.int32))
    got = pool.moved(0, rows, Rows(4, slots, None))
    assert torch.allclose(got[0], wanted(rows[:1], others[0])[0])
    assert torch.allclose(got[1], wanted(rows[1:2], mine[0])[0])
    assert torch.equal(got[2:], rows[2:, :D])


def test_a_captured_step_reads_whoever_was_filled_in_since(monkeypatch):
    monkeypatch.setattr(block_pool, "cms_delta_projected", delta_without_looking)
    pool, rows, table = made(), rows_of(0, 3), torch.zeros(3, 6, dtype=torch.int32)
    graph = Graph()
    with Blind(), graph:
        graph.output = pool.moved(2, rows, Rows(3, pool.slots_of(table), None))
    assert torch.equal(graph.replay(), rows[:, :D])
    for seed, (block, slot) in enumerate(((9, 1), (9, 2), (4, 1))):
        pool.fill([slot], [block], [content(seed)])
        table[0, 0] = block
        assert torch.allclose(graph.replay()[0], wanted(rows, content(seed)[2])[0])
        assert torch.equal(graph.replay()[1:], rows[1:, :D])


def test_filling_asks_for_no_value_that_lies_on_the_device():
    pool = made()
    with Blind(), Graph():
        pool.fill([1, 2], [9, 4], [content(1), None])


@pytest.mark.parametrize("look", [torch.Tensor.tolist, torch.Tensor.item, bool, lambda t: t[t > 0], torch.nonzero])
def test_a_step_that_looks_at_a_value_is_not_captured(look):
    with pytest.raises(HostLooked), Blind(), Graph():
        look(torch.ones(1))


def test_a_cache_whose_blocks_are_cut_is_refused():
    pool = BlockPool((5, LAYERS, D, R), torch.float32)
    pool.prepare(20, [torch.zeros(20, 2, 16, 1, 4), torch.zeros(2, 20, 16, 1, 4)])
    with pytest.raises(ValueError, match=r"20 blocks has shape \(40, 2, 8, 1, 4\); .* leaves blocks whole"):
        pool.prepare(20, [torch.zeros(40, 2, 8, 1, 4)])
