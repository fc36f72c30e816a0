"""The checker of histories finds what it is for, and nothing else."""

import pytest
from support.store_history import Acknowledged, History, Read, Sent, violations


def history(**changes):
    """Two requests of one owner, one after the other, and a read of both."""
    base = {
        "sent": [Sent("u", "a", "A", 0.0), Sent("u", "b", "B", 2.0), Sent("u", "lost", "L", 2.5)],
        "acknowledged": [Acknowledged("u", "a", "A", 1, 1.0), Acknowledged("u", "b", "B", 2, 3.0)],
        "reads": [Read("u", 2, (("a", "A"), ("b", "B")), 4.0), Read("u", 1, (("a", "A"),), 1.5)],
        "final": {"u": (("a", "A"), ("b", "B"))},
    }
    return History(**(base | changes))


def test_a_good_history_is_accepted():
    assert violations(history()) == []


def test_an_unacknowledged_request_may_be_there_or_not():
    final = {"u": (("a", "A"), ("b", "B"), ("lost", "L"))}
    assert violations(history(final=final)) == []


def test_a_repeated_acknowledgement_of_the_same_version_is_no_fault():
    acks = [*history().acknowledged, Acknowledged("u", "a", "A", 1, 9.0)]
    assert violations(history(acknowledged=acks)) == []


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("rule 1", {"acknowledged": [Acknowledged("u", "a", "A", 1, 1.0), Acknowledged("u", "b", "B", 1, 3.0)]}),
        ("rule 1", {"acknowledged": [Acknowledged("u", "a", "A", 1, 1.0), Acknowledged("u", "a", "A", 2, 3.0)]}),
        ("rule 2", {"final": {"u": (("a", "A"),)}, "reads": []}),
        ("rule 2", {"final": {"u": (("a", "A"), ("b", "B"), ("a", "A"))}}),
        ("rule 2", {"final": {}, "reads": []}),
        ("rule 2", {"acknowledged": [Acknowledged("u", "a", "A", 2, 1.0)]}),
        (
            "rule 3",
            {
                "acknowledged": [Acknowledged("u", "a", "A", 2, 1.0), Acknowledged("u", "b", "B", 1, 3.0)],
                "final": {"u": (("b", "B"), ("a", "A"))},
                "reads": [],
            },
        ),
        ("rule 4", {"reads": [Read("u", 1, (("a", "A"),), 4.0)]}),
        ("rule 4", {"reads": [Read("u", 0, (), 0.0, min_version=1)], "reads_are_current": False}),
        ("rule 4", {"reads": [Read("u", 2, (("b", "B"), ("a", "A")), 4.0)]}),
        ("rule 5", {"sent": [Sent("u", "a", "A", 0.0)]}),
        ("rule 5", {"sent": [Sent("u", "a", "A", 0.0), Sent("u", "b", "other", 2.0)]}),
    ],
)
def test_each_rule_finds_its_breach(rule, changes):
    found = violations(history(**changes))
    assert any(text.startswith(rule) for text in found), found


def test_concurrent_requests_may_take_either_order():
    changes = {
        "sent": [Sent("u", "a", "A", 0.0), Sent("u", "b", "B", 0.5)],
        "acknowledged": [Acknowledged("u", "a", "A", 2, 1.0), Acknowledged("u", "b", "B", 1, 3.0)],
        "final": {"u": (("b", "B"), ("a", "A"))},
        "reads": [],
    }
    assert violations(history(**changes)) == []


def test_a_read_during_an_acknowledgement_may_miss_it():
    assert violations(history(reads=[Read("u", 1, (("a", "A"),), 2.9)])) == []
