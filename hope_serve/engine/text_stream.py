"""The text of one generation as it may be shown: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from hope_serve.tokenizer import StreamDecoder, Tokenizer


class TextStream:
    """Turns tokens into text and watches for stop strings, also across token borders."""

    def __init__(self, tokenizer: Tokenizer, stops: tuple[str, ...]) -> None:
        self._decoder = StreamDecoder(tokenizer)
        self._stops = stops
        self._held = ""
        self.matched_stop = ""

    def push(self, token: int) -> str:
        """The text that this token makes certain. After a match it is what came before the stop string."""
        return self._release(self._decoder.push(token))

    def finish(self) -> str:
        """What was held back in vain."""
        text = self._release(self._decoder.flush())
        if self.matched_stop:
            return text
        held, self._held = self._held, ""
        return text + held

    def _release(self, text: str) -> str:
        if not self._stops:
            return text
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
