"""What a step may hold beside drawing, on devices of a known speed: no model, no clock."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from support.planning import learning, running, scheduler, sequence

from hope_serve.api import Owner
from hope_serve.engine.pace import LEAST_STEP_TOKENS
from hope_serve.engine.turns import shared_rows

MODEST, GREEDY, THIRD = (Owner(tenant=name, user=name) for name in ("modest", "greedy", "third"))


@dataclass
class Machine:
    """Takes planned steps as long as its speed says.

    step, row: seconds of a step that draws, and of each row in it; segment: of a lesson's, and lesson: of a step that
    has any. ahead: what a step draws is computed while the lessons of the step before, that launched it, are waited
    for.
    """

    step: float = 0.010
    row: float = 0.0
    tokens_per_second: float = 4000.0
    segment: float = 0.035
    lesson: float = 0.0
    ahead: bool = False
    hidden: bool = False
    now: float = 0.0
    drew: Counter = field(default_factory=Counter)

    def take(self, planner):
        plan = planner.plan()
        drawing = (self.step + self.row * len(plan.decode)) if plan.decode else 0.0
        reading = drawing + sum(piece.length for piece in plan.pieces) / self.tokens_per_second
        learning = self.segment * len(plan.lessons) + (self.lesson if plan.lessons else 0.0)
        if self.ahead:
            if self.hidden:
                reading -= drawing
            self.hidden = bool(plan.lessons)
            learning += drawing if plan.lessons else 0.0
        planner.measured(plan, reading=reading, learning=learning, num_lessons=len(plan.lessons))
        for piece in plan.pieces:
            piece.sequence.launched_piece(piece.length)
        for one in plan.decode:
            one.launched_decode()
            self.drew[one] += 1
        self.now += reading + learning
        return plan

    def rate(self, planner, one, steps=600):
        """How often ``one`` draws a second, once the pace is known."""
        for _ in range(100):
            self.take(planner)
        began, drawn = self.now, self.drew[one]
        for _ in range(steps):
            self.take(planner)
        return (self.drew[one] - drawn) / (self.now - began)

    def alone(self, rows=1):
        """The same of ``rows`` sequences with nobody beside them."""
        return 1 / (self.step + self.row * rows)


def drawing(owner=None, count=1):
    found = [sequence(2, max_tokens=1 << 20, owner=owner) for _ in range(count)]
    for one in found:
        one.launched_piece(2)
    return found


def busy(*sequences):
    planner = scheduler(max_step_tokens=256, max_queue_tokens=1 << 40, max_lessons=8, max_lesson_tokens=1)
    return running(planner, *sequences, num_slots=100)


def busy_on_a_card(*sequences):
    planner = scheduler(max_step_tokens=256, max_queue_tokens=1 << 40, max_lessons=8, adapt_step_seconds=0.05)
    return running(planner, *sequences, num_slots=100)


def long_lesson(owner):
    return learning(num_tokens=1 << 20, owner=owner)


BRINGS = {
    "rows": lambda owner: drawing(owner, 16),
    "prompts": lambda owner: [sequence(1 << 20, owner=owner) for _ in range(4)],
    "lessons": lambda owner: [long_lesson(owner) for _ in range(4)],
}


@pytest.mark.parametrize("row", [0.0, 0.0005, 0.003, 0.01])
@pytest.mark.parametrize("kinds", [("rows",), ("prompts",), ("lessons",), ("rows", "prompts", "lessons")])
def test_a_stream_keeps_more_than_half_of_its_rate_whatever_another_tenant_brings(kinds, row):
    """Four fifths by what steps show: the rest is for what they do not."""
    machine, (one,) = Machine(row=row), drawing(MODEST)
    planner = busy(one, *(theirs for kind in kinds for theirs in BRINGS[kind](GREEDY)))
    assert machine.rate(planner, one) / machine.alone() >= 0.8


def test_attackers_of_several_tenants_do_not_add_up():
    machine, (one,) = Machine(row=0.0005), drawing(MODEST)
    planner = busy(
        one, *BRINGS["rows"](GREEDY), *BRINGS["prompts"](THIRD), *BRINGS["lessons"](Owner(tenant="d", user="d"))
    )
    assert machine.rate(planner, one) / machine.alone() >= 0.8


@pytest.mark.parametrize("kinds", [("prompts",), ("lessons",), ("prompts", "lessons")])
def test_a_stream_keeps_half_of_its_rate_beside_what_its_own_tenant_brings(kinds):
    machine, (one,) = Machine(), drawing(MODEST)
    planner = busy(one, *(theirs for kind in kinds for theirs in BRINGS[kind](MODEST)))
    assert machine.rate(planner, one) / machine.alone() == pytest.approx(0.5, rel=0.1)


def test_who_brings_much_gets_what_is_left_and_all_of_its_sequences_draw_alike():
    machine, (one,), many = Machine(row=0.003), drawing(MODEST), drawing(GREEDY, 16)
    planner = busy(one, *many)
    machine.rate(planner, one)
    counts = [machine.drew[other] for other in many]
    assert min(counts) > machine.drew[one] / 16
    assert max(counts) - min(counts) <= 0.1 * max(counts)


def test_rows_of_one_tenant_and_rows_that_cost_nothing_all_draw_in_every_step():
    for machine, sequences in (
        (Machine(row=0.003), [*drawing(GREEDY, 16)]),
        (Machine(row=0.0), [*drawing(MODEST), *drawing(GREEDY, 16)]),
    ):
        planner = busy(*sequences)
        plans = [machine.take(planner) for _ in range(64)]
        assert sum(len(plan.decode) < len(sequences) for plan in plans) <= 2  # two looks at how long few rows take


def test_equal_tenants_all_draw_in_every_step_however_many_rows_they_have():
    tenants = [drawing(Owner(tenant=name, user="u"), 8) for name in "abcd"]
    machine = Machine(row=0.001)
    planner = busy(*(one for rows in tenants for one in rows))
    plans = [machine.take(planner) for _ in range(256)]
    assert sum(len(plan.decode) == 32 for plan in plans) >= 0.95 * len(plans)


def test_prompts_and_lessons_that_wait_beside_drawing_get_as_much_time():
    machine, (one,) = Machine(), drawing(MODEST)
    planner = busy(one, *BRINGS["prompts"](MODEST), *BRINGS["lessons"](MODEST))
    plans = [machine.take(planner) for _ in range(2000)]
    reading = sum(plan.num_prompt_tokens for plan in plans) / machine.tokens_per_second
    learning = sum(machine.segment * len(plan.lessons) for plan in plans)
    assert reading == pytest.approx(learning, rel=0.1)


def test_prompts_and_lessons_without_drawing_get_as_much_time_too():
    machine = Machine(tokens_per_second=16_000)
    planner = busy(*BRINGS["prompts"](MODEST), *BRINGS["lessons"](GREEDY))
    plans = [machine.take(planner) for _ in range(500)]
    reading = sum(plan.num_prompt_tokens for plan in plans) / machine.tokens_per_second
    assert reading == pytest.approx(sum(machine.segment * len(plan.lessons) for plan in plans), rel=0.1)
    assert all(plan.num_prompt_tokens == 256 for plan in plans)


def test_what_others_bring_takes_no_more_time_than_drawing_does_though_prompts_never_end():
    machine, (one,) = Machine(), drawing()
    planner = busy(one, sequence(1 << 20))  # no step was ever for drawing alone
    plans = [machine.take(planner) for _ in range(200)]
    assert plans[0].pieces == []
    assert all(plan.decode == [one] for plan in plans)
    lengths = [plan.num_prompt_tokens for plan in plans[100:]]
    assert sum(lengths) / machine.tokens_per_second == pytest.approx(machine.step * len(lengths), rel=0.05)
    assert max(lengths) / machine.tokens_per_second == pytest.approx(2 * machine.step, rel=0.05)


def test_a_prompt_gets_something_however_slow_it_is():
    machine, (one,) = Machine(tokens_per_second=400), drawing()
    planner = busy(one, sequence(1 << 20))
    lengths = [machine.take(planner).num_prompt_tokens for _ in range(200)][100:]
    assert set(lengths) == {0, LEAST_STEP_TOKENS}
    # 16 tokens take as long as four steps of drawing, which has to have had as much before the next.
    assert lengths.count(LEAST_STEP_TOKENS) >= 100 // 5 - 1


def test_a_lesson_waits_until_who_draws_has_had_as_much_time():
    machine, (one,) = Machine(segment=0.035), drawing()
    planner = busy(one, learning(num_tokens=1 << 20))
    assert "".join("L" if machine.take(planner).lessons else "." for _ in range(14)) == ".L...L...L...L"


def lessons_a_step(machine, planner, steps=2000):
    for _ in range(steps):
        machine.take(planner)
    counts = Counter(len(machine.take(planner).lessons) for _ in range(steps))
    del counts[0]
    return counts


@pytest.mark.parametrize(
    ("launches", "segment", "together"),
    [
        (0.030, 0.006, 3),  # 50 ms are allowed
        (0.200, 0.001, 8),  # over its time with one as well as with all
        (0.200, 0.040, 2),  # a quarter longer than one
        (0.0, 0.035, 1),
        (0.0, 0.005, 8),
    ],
)
def test_lessons_learn_together_where_that_hardly_makes_a_step_longer(launches, segment, together):
    machine = Machine(lesson=launches, segment=segment)
    planner = busy_on_a_card(*drawing(MODEST), *(long_lesson(MODEST) for _ in range(8)))
    counts = lessons_a_step(machine, planner)
    assert counts.most_common(1)[0][0] == together
    assert set(counts) <= {together, together + 1}  # one more now and then, to know what it takes
    assert counts[together] >= 12 * counts[together + 1]


def test_how_many_learn_together_follows_what_the_host_adds_to_their_time():
    machine = Machine(lesson=0.005, segment=0.005)
    planner = busy_on_a_card(*drawing(MODEST), *(long_lesson(MODEST) for _ in range(8)))
    assert lessons_a_step(machine, planner).most_common(1)[0][0] == 8
    machine.segment = 0.020
    assert lessons_a_step(machine, planner).most_common(1)[0][0] == 2


def test_lessons_before_any_was_measured_go_one_by_one():
    planner = busy_on_a_card(*drawing(MODEST), *(long_lesson(MODEST) for _ in range(8)))
    machine = Machine()
    first = next(plan for plan in (machine.take(planner) for _ in range(9)) if plan.lessons)
    assert len(first.lessons) == 1


@pytest.mark.parametrize("segment", [0.012, 0.035])
def test_lessons_get_the_same_share_where_they_hide_what_is_drawn_meanwhile(segment):
    rates = []
    for ahead in (False, True):
        machine, (one,) = Machine(segment=segment, ahead=ahead), drawing(MODEST)
        rates.append(machine.rate(busy_on_a_card(one, long_lesson(MODEST)), one, steps=2000))
    assert rates[1] == pytest.approx(rates[0], rel=0.05)


def test_rows_are_shared_out_one_by_one():
    names = ["g"] * 5 + ["m", "g", "x", "x"]
    assert shared_rows(names, 1) == [5]
    assert shared_rows(names, 3) == [0, 5, 7]
    assert shared_rows(names, 6) == [0, 1, 2, 5, 7, 8]
    assert shared_rows(names, 100) == list(range(9))
    assert shared_rows(names, 0) == []
