"""Who runs next, which slot goes to whom, and where a lesson stands: no model behind any of it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.planning import learning, lesson, running, scheduler, sequence

from hope_serve.api import Owner, TokenLogprob
from hope_serve.engine.outbid import giving_way
from hope_serve.engine.slots import SlotTable
from hope_serve.errors import DeadlineExceeded, Exhausted


def test_prompts_share_a_steps_budget_in_the_order_they_came():
    first, second, third = sequence(10), sequence(9), sequence(3)
    plan = running(scheduler(), first, second, third).plan()
    assert [(piece.sequence, piece.length) for piece in plan.pieces] == [(first, 10), (second, 6)]


def test_a_sequence_draws_ahead_of_what_was_heard_and_no_further_than_it_may():
    one = sequence(5, max_tokens=3)
    one.launched_piece(5)
    assert one.draws and not one.num_unfed
    one.launched_decode()
    assert one.draws and one.consumed == 6
    one.launched_decode()
    assert not one.draws  # three were launched, of which none was heard
    one.drawn.append(TokenLogprob(token=7, logprob=0.0))
    one.tokens.append(7)
    one.restart()
    assert one.num_unfed == 6 and not one.draws
    one.launched_piece(6)
    assert one.draws and one.num_launched == 2


def test_a_piece_ends_where_the_alignment_says_whoever_else_runs():
    one = sequence(21)
    planner = running(scheduler(align=8), one)
    lengths = []
    while one.num_unfed:
        lengths.append(planner.plan().pieces[0].length)
        one.launched_piece(lengths[-1])
    assert lengths == [8, 8, 5]


def test_one_that_needs_several_slots_is_not_overtaken_for_ever():
    wide, narrow = sequence(), sequence()
    wide.forks = [sequence() for _ in range(3)]
    planner = running(scheduler(), wide, narrow, num_slots=3)
    assert planner.waiting == [wide, narrow]
    assert planner.start(5) == [wide, narrow]


def test_tenants_and_then_users_take_turns_and_priority_orders_a_users_own():
    ann = Owner(tenant="a", user="ann")
    crowd = [sequence(owner=ann) for _ in range(4)]
    urgent, other, stranger = (
        sequence(owner=ann, priority=1),
        sequence(owner=Owner(tenant="a", user="bob")),
        sequence(owner=Owner(tenant="b", user="ann")),
    )
    planner = scheduler()
    for one in (*crowd, urgent, other, stranger):
        planner.admit(one)
        planner.add(one)
    order = planner.start(8)
    assert order[0] is urgent
    assert order.index(stranger) <= 2 and order.index(other) <= 3
    assert [one for one in order if one in crowd] == crowd


def test_lessons_need_places_and_go_on_in_turns_within_their_share_of_a_step():
    lessons = [learning() for _ in range(3)]
    planner = running(scheduler(adapt_step_seconds=0.0), sequence(2), *lessons)
    assert planner.waiting == [lessons[2]]
    assert [planner.plan().lessons for _ in range(3)] == [[lessons[0]], [lessons[1]], [lessons[0]]]


def test_lessons_go_together_when_nobody_waits_for_them():
    lessons = [learning() for _ in range(2)]
    assert running(scheduler(adapt_step_seconds=0.0), *lessons).plan().lessons == lessons


def test_lessons_of_a_step_are_bounded_where_memory_is():
    lessons = [learning() for _ in range(2)]
    assert running(scheduler(max_lesson_tokens=1), *lessons).plan().lessons == lessons[:1]


def fed(planner):
    """Who was fed how much by a step."""
    pieces = planner.plan().pieces
    for piece in pieces:
        piece.sequence.launched_piece(piece.length)
    return [(piece.sequence, piece.length) for piece in pieces]


def test_a_short_prompt_waits_for_no_long_one_to_be_read():
    ann, bea = Owner(tenant="", user="ann"), Owner(tenant="", user="bea")
    long, longer = sequence(1000, owner=ann), sequence(1000, owner=ann)
    planner = running(scheduler(max_queue_tokens=10_000), long, longer)
    assert [fed(planner)[0][0] for _ in range(4)] == [long, longer, long, longer]  # of one user, in turns
    short = sequence(10, owner=bea)
    planner.admit(short)
    planner.add(short)
    planner.start(4)
    assert fed(planner) == [(short, 10), (long, 6)]


def test_tenants_are_read_in_turn_before_their_users_are():
    crowd = [sequence(1000, owner=Owner(tenant="a", user=f"u{i}")) for i in range(3)]
    other, plain = sequence(1000, owner=Owner(tenant="b", user="u")), sequence(1000, payer="c")
    planner = running(scheduler(max_queue_tokens=10_000), *crowd, other, plain)
    turns = [fed(planner)[0][0] for _ in range(9)]
    assert [turns.count(one) for one in (*crowd, other, plain)] == [1, 1, 1, 3, 3]


def test_a_queue_that_is_full_says_when_to_come_back_and_counts_out_what_has_started():
    planner = scheduler(max_queue_tokens=100)
    planner.admit(sequence(80))
    with pytest.raises(Exhausted) as refused:
        planner.admit(sequence(30))
    assert refused.value.retry_after > 0
    other = scheduler(max_queue_tokens=100)
    running(other, sequence(80)).admit(sequence(30))
    assert other.queue_tokens == 30


def test_work_that_cannot_be_done_in_time_is_refused_before_it_waits():
    with pytest.raises(DeadlineExceeded, match="lie before the first reply"):
        scheduler().admit(sequence(50, deadline=0.0))


def test_a_lesson_is_cut_where_its_fastest_level_fires_and_read_once_more():
    one, lengths = lesson(40, passes=2, learned=10), []
    while not one.finished:
        lengths.append(one.next_length())
        if one.rereading:
            one.at += lengths[-1]
            continue
        one.learned(lengths[-1], gradient_norm=1.0, share=1.0, step_norm=1.0)
        if one.at == one.num_targets:
            one.end_pass()
    assert lengths == [6, 16, 16, 1, 15, 16, 8, 39]
    assert one.num_left == 0 and one.cadence.tokens == 10 + 2 * 39


def test_a_free_slot_keeps_its_memory_for_who_read_it_last():
    table, ann, bob = SlotTable(2), object(), object()
    first, held = table.take("a", ann)
    assert not held
    table.release(first, "a")
    other, _ = table.take("b", bob)
    assert other != first  # one without a memory loses nothing
    assert table.take("c", ann) == (first, True)
    assert table.num_free == 0


def test_the_slot_that_has_been_free_longest_goes_first():
    table = SlotTable(2)
    slots = {name: table.take(name, name)[0] for name in ("a", "b")}
    for name in ("b", "a"):
        table.release(slots[name], name)
    assert table.take("c", "c") == (slots["b"], False)


def test_a_slot_is_given_back_by_nobody_but_who_took_it():
    table = SlotTable(2)
    slot, _ = table.take("a", None)
    for stranger, given in (("b", slot), ("a", 3 - slot)):
        with pytest.raises(AssertionError, match="given back by whoever took it"):
            table.release(given, stranger)
    table.release(slot, "a")
    with pytest.raises(AssertionError, match="given back"):
        table.release(slot, "a")


def test_no_memory_is_a_memory_of_its_own():
    table, ann = SlotTable(1), object()
    slot, _ = table.take("a", ann)
    table.release(slot, "a")
    assert table.take("b", None) == (slot, False)
    table.release(slot, "b")
    assert table.take("c", None) == (slot, True)


def test_policies_are_imported_without_torch():
    rooms = ("arrivals", "scheduler", "sequence", "slots", "lesson", "fairness", "pace", "outbid", "turns")
    code = "import sys, types; package = types.ModuleType('hope_serve.engine'); import hope_serve; "
    code += "package.__path__ = [hope_serve.__path__[0] + '/engine']; sys.modules['hope_serve.engine'] = package; "
    code += "; ".join(f"import hope_serve.engine.{room}" for room in rooms)
    code += "; assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", code], check=True)


def holding(*tenants):
    """Running sequences, one slot each; those behind have been read further."""
    found = [sequence(100, owner=Owner(tenant=tenant, user="u")) for tenant in tenants]
    for at, one in enumerate(found):
        one.num_fed = at
    return found


def test_a_tenant_that_holds_every_slot_gives_one_to_another_and_loses_what_was_least_read():
    held, newcomer = holding(*"gggggggg"), sequence(owner=Owner(tenant="m", user="u"))
    assert giving_way(held, newcomer, 0) == [held[0]]
    assert giving_way(held, newcomer, 1) == []  # it can start as it is
    newcomer.forks = [sequence() for _ in range(3)]
    assert giving_way(held, newcomer, 1) == held[:3]
    newcomer.forks = [sequence() for _ in range(4)]
    assert giving_way(held, newcomer, 0) == []  # more than an even part


def test_nobody_gives_way_to_its_own_tenant_or_to_one_that_has_its_part():
    held = holding(*"ggggmmmm")
    assert giving_way(held, sequence(owner=Owner(tenant="g", user="other")), 0) == []
    assert giving_way(held, sequence(owner=Owner(tenant="m", user="other")), 0) == []
    assert giving_way(held, sequence(owner=Owner(tenant="x", user="u")), 0) == [held[0]]
    assert giving_way(holding("g"), sequence(owner=Owner(tenant="x", user="u")), 0) == []  # there is but one slot


def test_a_choice_whose_siblings_have_not_begun_gives_nothing_back():
    held = holding(*"gg")
    held[0].forks = [sequence() for _ in range(6)]
    assert giving_way(held, sequence(owner=Owner(tenant="m", user="u")), 0) == [held[1]]
