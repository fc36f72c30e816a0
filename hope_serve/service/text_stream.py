"""The text of one generation as it may be shown: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from hope_serve.api.engine import TokenDrawn
from hope_serve.tokenizer import StreamDecoder, Vocabulary


class Piece(NamedTuple):
    """Text that has become certain, and the tokens that it begins."""

    text: str
    tokens: tuple[TokenDrawn, ...]


class TextStream:
    """Turns tokens into text and watches for stop strings, also across token borders.

    Args:
        min_tokens: what these first tokens say is the answer's, whatever it spells; stop strings count behind them.
    """

    def __init__(self, tokenizer: Vocabulary, stops: tuple[str, ...], *, min_tokens: int = 0) -> None:
        self._decoder = StreamDecoder(tokenizer)
        self._stops = stops
        self._min_tokens = min_tokens
        self._held = ""
        # Tokens that were not given out yet, and where in the text each begins.
        self._waiting: deque[tuple[int, TokenDrawn]] = deque()
        self._num_pushed = self._num_decoded = self._num_shown = 0
        self.matched_stop = ""

    def push(self, drawn: Sequence[TokenDrawn]) -> Piece:
        """What these tokens make certain. After a match it is what came before the stop string."""
        if not self._stops:  # nothing is ever held back but half a character
            return Piece(self._decoder.push(*(one.token for one in drawn)), tuple(drawn))
        pieces: list[Piece] = []
        for one in drawn:
            pieces.append(self._watched(one))
            if self.matched_stop:
                break
        return Piece("".join(p.text for p in pieces), tuple(one for p in pieces for one in p.tokens))

    def _watched(self, drawn: TokenDrawn) -> Piece:
        self._num_pushed += 1
        self._waiting.append((self._num_decoded, drawn))
        text = self._decoder.push(drawn.token)
        self._num_decoded += len(text)
        if self._num_pushed <= self._min_tokens:
            return self._everything(text)
        return self._up_to(self._release(text))

    def finish(self) -> Piece:
        """What was held back in vain."""
        text = self._release(self._decoder.flush()) if self._stops else self._decoder.flush()
        if self.matched_stop:
            return self._up_to(text)
        held, self._held = self._held, ""
        return self._everything(text + held)

    def _everything(self, text: str) -> Piece:
        self._num_shown += len(text)
        tokens = tuple(drawn for _, drawn in self._waiting)
        self._waiting.clear()
        return Piece(text, tokens)

    def _up_to(self, text: str) -> Piece:
        """``text``, and the tokens that begin in what is shown with it."""
        self._num_shown += len(text)
        tokens = []
        while self._waiting and self._waiting[0][0] < self._num_shown:
            tokens.append(self._waiting.popleft()[1])
        return Piece(text, tuple(tokens))

    def _release(self, text: str) -> str:
        self._held += text
        found = [(at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            at, self.matched_stop = min(found)
            shown, self._held = self._held[:at], ""
            return shown
        keep = self._overlap()
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(shown) :]
        return shown

    def _overlap(self) -> int:
        """Length of the longest end of the held text that a stop string begins with."""
        longest = min(len(self._held), max(map(len, self._stops)) - 1)
        for length in range(longest, 0, -1):
            tail = self._held[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0
