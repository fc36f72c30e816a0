"""Shares of tenants and users: proportional, without starvation, without credit for resting."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hope_serve.engine import fairness
from hope_serve.engine.fairness import FairQueue


def filled(queue, *, tenant, users, items, cost=1.0, weight=1.0):
    for user in users:
        for number in range(items):
            queue.push((tenant, user, number), tenant=tenant, user=user, cost=cost, weight=weight)
    return queue


def served(queue, turns):
    return [queue.pop() for _ in range(turns)]


def test_a_tenant_with_a_thousand_items_gets_no_more_than_one_with_ten():
    queue = filled(FairQueue(), tenant="greedy", users=["g"], items=1000)
    filled(queue, tenant="modest", users=["m"], items=10)
    assert Counter(item[0] for item in served(queue, 20)) == {"greedy": 10, "modest": 10}


def test_a_tenant_with_many_users_gets_no_more_than_one_with_one():
    queue = filled(FairQueue(), tenant="many", users=[f"u{i}" for i in range(50)], items=10)
    filled(queue, tenant="one", users=["o"], items=100)
    assert Counter(item[0] for item in served(queue, 100)) == {"many": 50, "one": 50}


def test_users_of_a_tenant_share_alike():
    queue = filled(FairQueue(), tenant="t", users=["greedy"], items=100)
    filled(queue, tenant="t", users=["modest"], items=10)
    assert Counter(item[1] for item in served(queue, 20)) == {"greedy": 10, "modest": 10}


def test_shares_go_by_cost_and_weight():
    queue = filled(FairQueue(), tenant="dear", users=["u"], items=100, cost=4.0)
    filled(queue, tenant="cheap", users=["u"], items=400)
    filled(queue, tenant="heavy", users=["u"], items=400, weight=2.0)
    got = Counter()
    for tenant, _, _ in served(queue, 250):
        got[tenant] += 4.0 if tenant == "dear" else 1.0
    assert got["heavy"] == pytest.approx(2 * got["cheap"], rel=0.05)
    assert got["dear"] == pytest.approx(got["cheap"], rel=0.06)


def test_cost_that_shows_afterwards_is_charged_to_the_next_turns():
    queue = filled(FairQueue(), tenant="writes", users=["w"], items=100)
    filled(queue, tenant="reads", users=["r"], items=100)
    got = Counter()
    for _ in range(60):
        tenant, user, _ = queue.pop()
        got[tenant] += 1
        if tenant == "writes":
            queue.charge(tenant=tenant, user=user, cost=4.0)
    assert got["reads"] == pytest.approx(5 * got["writes"], rel=0.1)


def test_whoever_has_nothing_waiting_is_charged_all_the_same():
    queue = FairQueue()
    queue.push("once", tenant="a", user="a", cost=1.0)
    queue.pop()
    queue.charge(tenant="a", user="a", cost=9.0)
    filled(queue, tenant="a", users=["a"], items=5)
    filled(queue, tenant="b", users=["b"], items=20)
    assert [tenant for tenant, _, _ in served(queue, 9)] == ["b"] * 9


def test_resting_earns_nothing():
    queue = filled(FairQueue(), tenant="busy", users=["b"], items=1000)
    served(queue, 500)
    filled(queue, tenant="late", users=["l"], items=500)
    assert Counter(item[0] for item in served(queue, 100))["late"] == pytest.approx(50, abs=1)


def test_a_users_own_items_go_by_priority_and_then_by_age():
    queue = FairQueue()
    for name, priority in (("first", 0), ("urgent", 5), ("second", 0), ("later", -5)):
        queue.push(name, tenant="t", user="u", cost=1.0, priority=priority)
    assert served(queue, 4) == ["urgent", "first", "second", "later"]


def test_priority_takes_nothing_from_others():
    queue = FairQueue()
    for number in range(10):
        queue.push(("loud", number), tenant="t", user="loud", cost=1.0, priority=100)
        queue.push(("quiet", number), tenant="t", user="quiet", cost=1.0)
    assert Counter(item[0] for item in served(queue, 10)) == {"loud": 5, "quiet": 5}


def test_an_item_that_was_removed_has_no_turn_and_costs_nothing():
    queue = filled(FairQueue(), tenant="a", users=["u"], items=10)
    filled(queue, tenant="b", users=["u"], items=10)
    for number in range(9):
        queue.remove(("a", "u", number))
    queue.remove("never there")
    assert len(queue) == 11
    assert served(queue, 2)[0] == ("a", "u", 9)
    queue.push(("a", "u", 0), tenant="a", user="u", cost=1.0)  # the same item again
    assert {queue.pop() for _ in range(len(queue))} >= {("a", "u", 0)}


def test_what_makes_no_sense_is_refused():
    queue = FairQueue()
    queue.push("x", tenant="t", user="u", cost=1.0)
    with pytest.raises(ValueError, match="waits already"):
        queue.push("x", tenant="t", user="u", cost=1.0)
    for cost, weight in ((0.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0), (1.0, 0.0), (1.0, float("inf"))):
        with pytest.raises(ValueError, match="positive"):
            queue.push("y", tenant="t", user="u", cost=cost, weight=weight)
    for cost in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="negative"):
            queue.charge(tenant="t", user="u", cost=cost)
    assert queue.pop() == "x"
    assert queue.peek() is None
    with pytest.raises(IndexError):
        queue.pop()


def test_those_who_left_are_forgotten():
    queue = FairQueue()
    for number in range(5000):
        queue.push(number, tenant=f"t{number}", user=f"u{number}", cost=1.0)
        queue.pop()
    assert len(queue._tenants) <= 2
    for number in range(5000):  # what they went on to write was more than what they had asked to read
        queue.push(number, tenant=f"t{number}", user=f"u{number}", cost=10.0)
        queue.pop()
        queue.charge(tenant=f"t{number}", user=f"u{number}", cost=100.0)
    assert len(queue._tenants) <= 15
    for number in range(5000):
        queue.push(number, tenant="t", user=f"u{number}", cost=1.0)
        queue.pop()
    assert queue._tenants.get("t") is None


def test_it_stands_alone():
    """The policy can be read, tested and moved without a device or a model."""
    tree = ast.parse(Path(fairness.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported == {"__future__", "heapq", "collections.abc", "dataclasses", "itertools", "typing"}


@given(
    costs=st.dictionaries(
        st.sampled_from("abcdef"),
        st.tuples(st.floats(0.5, 4.0), st.lists(st.floats(0.1, 10.0), min_size=40, max_size=60)),
        min_size=2,
    )
)
def test_while_two_tenants_have_work_their_shares_differ_by_at_most_one_item_each(costs):
    """The bound of start-time fair queueing: |W_f/w_f - W_g/w_g| <= max cost_f/w_f + max cost_g/w_g."""
    queue, numbers = FairQueue(), count()
    for tenant, (weight, items) in costs.items():
        for cost in items:
            queue.push((tenant, next(numbers), cost), tenant=tenant, user="u", cost=cost, weight=weight)
    got = defaultdict(float)
    for _ in range(40):  # nobody runs out
        tenant, _, cost = queue.pop()
        got[tenant] += cost / costs[tenant][0]
        for one in costs:
            for other in costs:
                most = sum(max(costs[name][1]) / costs[name][0] for name in (one, other))
                assert abs(got[one] - got[other]) <= most + 1e-6


class Queues(RuleBasedStateMachine):
    """Against a list: nothing is lost, doubled, or served before its user's better items; everybody gets a turn."""

    def __init__(self):
        super().__init__()
        self.queue = FairQueue()
        self.waiting = {}
        self.numbers = count()
        self.passed_over = Counter()

    @rule(
        tenant=st.sampled_from("ab"),
        user=st.sampled_from("xyz"),
        cost=st.sampled_from([1, 2]),
        priority=st.integers(-1, 1),
    )
    def push(self, tenant, user, cost, priority):
        item = next(self.numbers)
        self.queue.push(item, tenant=tenant, user=user, cost=float(cost), priority=priority)
        self.waiting[item] = (tenant, user, priority)

    @precondition(lambda self: self.waiting)
    @rule()
    def pop(self):
        first = self.queue.peek()
        item = self.queue.pop()
        assert item == first
        tenant, user, priority = self.waiting.pop(item)
        mine = [(-p, i) for i, (t, u, p) in self.waiting.items() if (t, u) == (tenant, user)]
        assert all((-priority, item) < other for other in mine)
        for other_tenant, other_user, _ in set(self.waiting.values()):
            self.passed_over[other_tenant, other_user] += 1
        self.passed_over[tenant, user] = 0
        for key in list(self.passed_over):
            if key not in {(t, u) for t, u, _ in self.waiting.values()}:
                self.passed_over[key] = 0
        assert max(self.passed_over.values()) <= 40

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def remove(self, data):
        item = data.draw(st.sampled_from(sorted(self.waiting)))
        self.queue.remove(item)
        del self.waiting[item]

    @rule(tenant=st.sampled_from("ab"), user=st.sampled_from("xyz"))
    def charge(self, tenant, user):
        self.queue.charge(tenant=tenant, user=user, cost=0.5)

    @invariant()
    def holds_what_waits(self):
        assert sorted(self.queue) == sorted(self.waiting)
        assert len(self.queue) == len(self.waiting)


TestQueues = Queues.TestCase
