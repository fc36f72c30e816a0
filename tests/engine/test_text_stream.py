"""What text may be shown, and when: whole characters, and nothing of a stop string."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.tiny_model import tiny_tokenizer

from hope_serve.engine.text_stream import TextStream

TOKENIZER = tiny_tokenizer()


def stream(text: str, stops: tuple[str, ...]) -> tuple[list[str], TextStream]:
    """The pieces shown, token by token, until a stop matches."""
    shown = TextStream(TOKENIZER, stops)
    pieces = []
    for token in TOKENIZER.encode(text):
        pieces.append(shown.push(token))
        if shown.matched_stop:
            return pieces, shown
    return [*pieces, shown.finish()], shown


@given(st.text(max_size=60))
def test_no_character_is_ever_split(text):
    pieces, _ = stream(text, ())
    assert "".join(pieces) == text.encode("utf-8", "replace").decode("utf-8")
    assert "\ufffd" not in "".join(pieces) or "\ufffd" in text


@given(
    st.text(alphabet="abcé🎉 ", max_size=40), st.lists(st.text(alphabet="abcé🎉 ", min_size=1, max_size=5), max_size=3)
)
def test_text_ends_before_the_first_stop_wherever_tokens_break(text, stops):
    pieces, shown = stream(text, tuple(stops))
    at = [text.find(stop) for stop in stops if stop in text]
    said = "".join(pieces)
    if not at:
        assert said == text and not shown.matched_stop
    else:
        assert shown.matched_stop in stops
        assert said == text[: text.find(shown.matched_stop)]
        assert not any(stop in said for stop in stops)


def test_held_back_text_comes_out_when_no_stop_follows():
    pieces, _ = stream("the dog is", ("is a",))
    assert "".join(pieces) == "the dog is"


def test_incomplete_bytes_at_the_end_become_a_replacement_character():
    shown = TextStream(TOKENIZER, ())
    token = TOKENIZER.encode("日")[0]
    assert shown.push(token) == ""
    assert shown.finish() == "\ufffd"
