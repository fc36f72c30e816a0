"""Passages in the form of LAMBADA, cut from running text by rules. They are not the LAMBADA set.

    python -m hope_serve.evals.passages books_test.txt --out passages.jsonl
    hope-serve eval language --lambada passages.jsonl --checkpoint hope_serve/checkpoints/hope-demo

LAMBADA (Paperno et al. 2016) was chosen by people: with the whole passage they guess its last word, with the last
sentence alone they do not. Nobody guesses here. What stands in for them are rules, and a figure on such passages says
nothing beside one on the set:

- A passage is whole sentences of one paragraph, 50 to 120 words together, cut behind the last word: those that begin
  first, and the most of them. Paragraphs stand on a line each; verse and other broken lines are left out.
- The last word has four letters or more, is no word that every text is full of, and ends its sentence.
- It stands in the passage before, letter for letter, and not in the last sentence: there alone it can be read.
- Of every 500 words of a document one passage is taken at most, the first whose paragraph begins there.

Nothing is drawn. The passages are ordered by their SHA-256, so that any beginning of the file, which is what a suite of
a smaller scale takes, is a sample of the whole. Documents end with a line that holds U+001E alone.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec

from hope_serve.errors import InvalidRequest
from hope_serve.evals.last_words import last_sentence
from hope_serve.evals.texts import SEPARATOR

LEAST_WORDS, MOST_WORDS = 50, 120
REGION_WORDS = 500
_COMMON = """
    about above according across after afterwards again against ahead almost alone along already also although always
    among amongst another anybody anyone anything anywhere apart around aside away back became because become been
    before beforehand behind being below beneath beside besides between beyond both came cannot come comes could does
    doing done down during each either else elsewhere enough even ever every everybody everyone everything everywhere
    except find finds first found from further gave give given gives goes going gone hardly have having hence here hers
    herself himself however indeed instead into itself just knew know known knows last less like likewise little look
    looked looks made make makes many maybe mere merely might mine more moreover most much must myself near nearly
    neither never nevertheless next nobody none nothing nowhere often once only onto other others otherwise ought ours
    ourselves over perhaps quite rather really right said same says seem seemed seems shall should since some somebody
    somehow someone something sometimes somewhat somewhere soon still such take taken takes tell tells than that theirs
    them themselves then thence there therefore these they thing things think thinks this those though thought through
    throughout thus till together told took toward towards under unless until upon used very want wanted wants well went
    were what whatever when whence whenever where wherever whether which whichever while whom whose will with within
    without would yesterday your yours yourself yourselves
"""
"""Function words and the commonest verbs, of four letters and more: they are guessed without having read anything."""
COMMON = frozenset(_COMMON.split())

_TITLES = ("Capt", "Col", "Dr", "Esq", "Gen", "Lieut", "Messrs", "Mme", "Mr", "Mrs", "Ms", "Prof", "Rev", "St")
_END = re.compile(r"""[.!?]"?(?= ["'(]*[A-Z]|$)""")
_LAST_WORD = re.compile(r' ([A-Za-z]{4,})[.!?]"?')
_WORD = re.compile(r"\b[A-Za-z]{4,}\b")
_NO_END = re.compile(rf"\b(?:{'|'.join(_TITLES)}|[A-Z])\.$")


def passages(text: str) -> list[str]:
    """Every passage of a text, ordered by SHA-256; the last word of each is its last, with nothing behind it."""
    found = {passage for document in _documents(text) for passage in _one_a_region(document)}
    return sorted(found, key=lambda passage: hashlib.sha256(passage.encode()).digest())


def cut(paragraph: str) -> str | None:
    """The first passage of a paragraph, the longest that begins there, without the mark behind its last word."""
    for start, ends in _starts(paragraph):
        for before, end in reversed(ends):
            word = _LAST_WORD.fullmatch(paragraph, paragraph.rfind(" ", before, end), end)
            num_words = len(paragraph[start:end].split())
            if word and LEAST_WORDS <= num_words <= MOST_WORDS and _is_read_before(word, start, before):
                return paragraph[start : word.end(1)].lstrip()
    return None


def guess(passages: Sequence[str]) -> float:
    """How often a word drawn from those that may be asked for by the rules is the last one, from 0 to 1."""
    return sum(1 / len(_candidates(passage)) for passage in passages) / len(passages)


def load_text(path: Path) -> str:
    """A whole file. Raises InvalidRequest."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(str(path), f"it cannot be read as UTF-8 text: {error}") from error


def _starts(paragraph: str) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Where each sentence begins, and the begins and ends of those behind it."""
    ends = [match.end() for match in _END.finditer(paragraph) if not _NO_END.search(paragraph[: match.end()])]
    sentences = list(pairwise([0, *ends]))
    for at, (start, _) in enumerate(sentences):
        yield start, sentences[at + 1 :]


def _is_read_before(asked: re.Match[str], start: int, before: int) -> bool:
    """Whether a word that is no common one stands from ``start`` to ``before``, and not behind that."""
    text, word = asked.string, asked[1]
    if word.lower() in COMMON:
        return False
    whole = rf"\b{word}\b"
    last = text[before : asked.start()]
    return bool(re.search(whole, text[start:before])) and not re.search(whole, last, re.IGNORECASE)


def _candidates(passage: str) -> set[str]:
    """The words of a passage that stand before its last sentence and not in it, but for the common ones."""
    start = passage.rpartition(" ")[0]
    last = last_sentence(start)
    out = COMMON | set(_WORD.findall(last.lower()))
    return {word for word in _WORD.findall(start.removesuffix(last)) if word.lower() not in out}


def _documents(text: str) -> list[str]:
    return re.split(rf"^{SEPARATOR}$", text, flags=re.MULTILINE)


def _one_a_region(document: str) -> Iterator[str]:
    """The first passage that begins in each region of a document."""
    words, free_from = 0, 0
    for paragraph in re.split(r"\n\s*\n", document):
        line = paragraph.strip()
        if words >= free_from and "\n" not in line and (passage := cut(line)):
            yield passage
            free_from = (words // REGION_WORDS + 1) * REGION_WORDS
        words += len(line.split())


def main() -> None:
    """Write one file from others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path, nargs="+", help="running text, UTF-8")
    parser.add_argument("--out", type=Path, required=True, help="the passages, JSON lines")
    given = parser.parse_args()
    found = passages(f"\n{SEPARATOR}\n".join(map(load_text, given.texts)))
    if not found:
        raise SystemExit("no passage was found; paragraphs stand on a line each, with an empty line between them")
    lines = b"".join(msgspec.json.encode({"text": passage}) + b"\n" for passage in found)
    given.out.write_bytes(lines)
    digest = hashlib.sha256(lines).hexdigest()
    print(f"{given.out}: {len(found)} passages; a guess is right {guess(found):.1%} of the time; SHA-256 {digest}")


if __name__ == "__main__":
    main()
