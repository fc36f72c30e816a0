"""Histories in parts: their messages mean what was given, and their digest is the one that the contract describes."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hope_serve.api import AdaptMetrics, AdaptMode, AdaptOptions, AdaptResult, AdaptStreamResult, Durability, Source
from hope_serve.message import Message
from hope_serve.wire.parts import (
    AdaptStartCall,
    PartsDigest,
    parts_digest,
    read_part,
    read_start,
    read_streamed,
    write_end,
    write_part,
    write_start,
    write_streamed,
)

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=9)
IDS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=4).map(tuple)
TURN = st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), text=TEXT)
PART = TEXT | IDS | st.lists(TURN, min_size=1, max_size=3).map(tuple)


@given(
    st.builds(
        AdaptStartCall,
        user_id=st.text(max_size=5),
        request_id=st.just("r"),
        expected_version=st.none() | st.integers(0, 2**62),
        options=st.builds(AdaptOptions, passes=st.integers(1, 16), mode=st.sampled_from(AdaptMode)),
        source=st.builds(Source, id=st.text(max_size=5)),
        payload_digest=st.just("") | st.just("0" * 64),
    )
)
def test_starts(call):
    assert read_start(write_start(call).start) == call


@given(PART)
def test_a_part_and_its_digest_survive_the_wire(part):
    arrived = read_part(write_part(part).part)
    assert arrived == part
    assert parts_digest([arrived]) == parts_digest([part])


@given(st.integers(0, 2**31 - 1))
def test_ends(count):
    assert write_end(count).end.num_parts == count


@pytest.mark.parametrize("resumed", [0, 3])
def test_replies(resumed):
    result = AdaptResult(
        version=3, base_version=2, state_digest="d", durability=Durability.VOLATILE, metrics=AdaptMetrics(tokens_used=7)
    )
    done = AdaptStreamResult(result=result, num_parts_resumed=resumed)
    assert read_streamed(write_streamed(done)) == done


def test_the_digest_is_spelt_out_in_the_contract():
    """Kind, number of items, and each item behind its length; little-endian."""
    parts = ["Zoë", (1, 258), [Message(role="user", text="hi"), Message(role="assistant", text="ho")]]
    spelt = (
        b"\x01" + b"\x01\0\0\0" + b"\x04" + bytes(7) + "Zoë".encode()
        + b"\x02" + b"\x01\0\0\0" + b"\x08" + bytes(7) + b"\x01\0\0\0" + b"\x02\x01\0\0"
        + b"\x03" + b"\x04\0\0\0"
        + b"\x04" + bytes(7) + b"user" + b"\x02" + bytes(7) + b"hi"
        + b"\x09" + bytes(7) + b"assistant" + b"\x02" + bytes(7) + b"ho"
    )  # fmt: skip
    assert parts_digest(parts) == hashlib.sha256(spelt).hexdigest()


@given(st.lists(PART, min_size=2, max_size=4))
def test_cutting_is_part_of_what_a_history_is(parts):
    digest = PartsDigest()
    running = [digest.add(part) for part in parts]
    assert len(set(running)) == len(parts)
    assert running[-1] == parts_digest(parts) != parts_digest(reversed(parts)) or parts == parts[::-1]
    assert parts_digest(["ab", "c"]) != parts_digest(["a", "bc"]) != parts_digest(["abc"])


@pytest.mark.parametrize("part", ["\ud800", [2**31], [1, -(2**40)]])
def test_what_no_message_can_hold_has_no_digest(part):
    with pytest.raises(ValueError, match=r"surrogates|32 bits"):
        parts_digest([part])
