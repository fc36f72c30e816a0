"""Other people's text, a few sentences at a time: books, dialogues, definitions, and what people say of themselves."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

SEPARATOR = "\x1e"
_SPEAKER = re.compile(r"^(User( \d)?|Assistant|A|B|About User \d): ")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]* +")
_WINDOW = 1600
_SHARES = MappingProxyType({"books": 5, "dialogue": 5, "reference": 1})
"""How often a passage is of which kind; definitions are many and alike."""


class Prose:
    """Draws passages from ``books``, ``dialogues`` and ``reference`` texts; every draw starts at a sentence."""

    def __init__(self, texts: Mapping[str, str], draw: random.Random) -> None:
        self._texts = [text for text in texts.values() if len(text) > 2 * _WINDOW]
        if not self._texts:
            raise ValueError(f"no text is longer than {2 * _WINDOW} characters; name files with more text")
        self._shares = [_SHARES.get(name, 1) for name, text in texts.items() if len(text) > 2 * _WINDOW]
        self._draw = draw

    @classmethod
    def load(cls, folder: Path, suffix: str, draw: random.Random, *, max_characters: int = 30_000_000) -> Prose:
        """Read ``*_SUFFIX.txt`` of a folder, at most ``max_characters`` of each."""
        texts = {}
        for path in sorted(folder.glob(f"*_{suffix}.txt")):
            with path.open(encoding="utf-8") as file:
                texts[path.name.removesuffix(f"_{suffix}.txt")] = file.read(max_characters)
        if not texts:
            raise ValueError(f"{folder} holds no *_{suffix}.txt; unpack the texts there")
        return cls(texts, draw)

    def sentences(self, count: int, *, least_words: int = 1, most_words: int = 60) -> list[str]:
        """Up to ``count`` consecutive sentences, as plain text."""
        found = [s for s in self._split(self._window()) if least_words <= len(s.split()) <= most_words]
        return found[:count] if found else self.sentences(count, least_words=least_words, most_words=most_words)

    def passage(self, characters: int) -> str:
        """About ``characters`` of running text."""
        parts: list[str] = []
        while sum(map(len, parts)) < characters:
            parts += self.sentences(12)
        return _cut(" ".join(parts), characters)

    def run(self, characters: int) -> str:
        """``characters`` of one text in one piece, for what comes next in it."""
        text = self._one()
        at = self._draw.randrange(max(1, len(text) - characters - 50))
        at = text.find(" ", at) + 1
        return _cut(re.sub(r"\s+", " ", text[at : at + characters + 20].replace(SEPARATOR, " ")).strip(), characters)

    def _one(self) -> str:
        return self._draw.choices(self._texts, self._shares)[0]

    def _window(self) -> str:
        text = self._one()
        at = self._draw.randrange(len(text) - _WINDOW)
        return text[at : at + _WINDOW].split(SEPARATOR)[0]

    def _split(self, window: str) -> list[str]:
        """Whole sentences of a window; the first and the last are cut and left out."""
        lines = [_SPEAKER.sub("", line).strip() for line in window.replace("\n\n", "\n.\n").split("\n")]
        joined = re.sub(r"\s+", " ", " ".join(lines))
        sentences = [
            s.strip(" .") + "." * s.strip().endswith(".") for s in _SENTENCE_END.split(joined)[1:-1] if s.strip(" .")
        ]
        return [s if s[-1] in ".!?\"'" else s + "." for s in sentences]


def _cut(text: str, characters: int) -> str:
    short = text[:characters]
    return short[: short.rfind(" ")] if " " in short and len(text) > characters else short
