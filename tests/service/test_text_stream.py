"""What text may be shown, and when: whole characters, and nothing of a stop string."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.tiny_model import tiny_tokenizer

from hope_serve.api.engine import TokenDrawn
from hope_serve.service.text_stream import Piece, TextStream

TOKENIZER = tiny_tokenizer()


def stream(text: str, stops: tuple[str, ...], *, min_tokens: int = 0) -> tuple[list[Piece], TextStream]:
    """The pieces shown, token by token, until a stop matches."""
    shown = TextStream(TOKENIZER, stops, min_tokens=min_tokens)
    pieces = []
    for token in TOKENIZER.encode(text):
        pieces.append(shown.push([TokenDrawn(choice=0, token=token)]))
        if shown.matched_stop:
            return pieces, shown
    return [*pieces, shown.finish()], shown


def said(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def tokens(pieces: list[Piece]) -> list[int]:
    return [sampled.token for piece in pieces for sampled in piece.tokens]


@given(st.text(max_size=60))
def test_no_character_is_ever_split(text):
    pieces, _ = stream(text, ())
    assert said(pieces) == text.encode("utf-8", "replace").decode("utf-8")
    assert "\ufffd" not in said(pieces) or "\ufffd" in text
    assert tokens(pieces) == TOKENIZER.encode(text)


@given(
    st.text(alphabet="abcé🎉 ", max_size=40), st.lists(st.text(alphabet="abcé🎉 ", min_size=1, max_size=5), max_size=3)
)
def test_text_ends_before_the_first_stop_wherever_tokens_break(text, stops):
    pieces, shown = stream(text, tuple(stops))
    at = [text.find(stop) for stop in stops if stop in text]
    whole = TOKENIZER.encode(text)
    if not at:
        assert said(pieces) == text and not shown.matched_stop
        assert tokens(pieces) == whole
    else:
        assert shown.matched_stop in stops
        assert said(pieces) == text[: text.find(shown.matched_stop)]
        assert not any(stop in said(pieces) for stop in stops)
        given_out = tokens(pieces)
        assert given_out == whole[: len(given_out)]
        assert TOKENIZER.decode(given_out).startswith(said(pieces))
        assert not given_out or not TOKENIZER.decode(given_out[:-1]).startswith(said(pieces))


@given(st.text(alphabet="abc ", max_size=40), st.integers(0, 12))
def test_stop_strings_count_behind_the_first_tokens(text, least):
    pieces, shown = stream(text, ("a", "b"), min_tokens=least)
    whole = TOKENIZER.encode(text)
    free = TOKENIZER.decode(whole[:least])
    rest = text[len(free) :]
    ends = [at for stop in "ab" if (at := rest.find(stop)) >= 0]
    assert said(pieces) == free + (rest[: min(ends)] if ends else rest)
    assert bool(shown.matched_stop) == bool(ends)
    assert tokens(pieces)[:least] == whole[:least]


def test_held_back_text_comes_out_when_no_stop_follows():
    pieces, _ = stream("the dog is", ("is a",))
    assert said(pieces) == "the dog is"


def test_incomplete_bytes_at_the_end_become_a_replacement_character():
    shown = TextStream(TOKENIZER, ())
    token = TOKENIZER.encode("日")[0]
    assert shown.push([TokenDrawn(choice=0, token=token)]).text == ""
    assert shown.finish().text == "\ufffd"


@given(
    st.text(alphabet="abcé🎉 ", max_size=40),
    st.lists(st.text(alphabet="abcé🎉 ", min_size=1, max_size=5), max_size=3),
    st.integers(1, 7),
    st.integers(0, 9),
)
def test_tokens_that_come_together_say_what_they_say_one_by_one(text, stops, at_once, min_tokens):
    pieces, alone = stream(text, tuple(stops), min_tokens=min_tokens)
    together = TextStream(TOKENIZER, tuple(stops), min_tokens=min_tokens)
    drawn = [TokenDrawn(choice=0, token=token) for token in TOKENIZER.encode(text)]
    found = []
    for at in range(0, len(drawn), at_once):
        found.append(together.push(drawn[at : at + at_once]))
        if together.matched_stop:
            break
    else:
        found.append(together.finish())
    assert (said(found), tokens(found), together.matched_stop) == (said(pieces), tokens(pieces), alone.matched_stop)
