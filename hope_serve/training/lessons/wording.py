"""How the same words come out of different hands: leads, lower case, missing points, slips of the finger."""

from __future__ import annotations

import random
import re
from types import MappingProxyType

from hope_serve.training.lessons.lesson import Question

LEADS = (
    "By the way, ", "Oh, and ", "Also, ", "Just so you know, ", "One more thing: ", "Well, ", "Anyway, ", "PS: ",
    "So, ",
    "For the record: ", "Before I forget: ", "Note: ", "Listen, ", "Funny thing, ", "As I said to my neighbour, ", "- ",
    "Remember this: ", "Hi! ", "FYI, ", "In case it comes up: ",
)  # fmt: skip
ASKING_LEADS = (
    "Tell me: ", "Quick question: ", "Hey, ", "Hi, ", "Remind me, ", "Sorry, ", "Do you know this? ", "Help me out: ",
    "Now then, ", "One question. ",
)  # fmt: skip
ACKNOWLEDGEMENTS = (
    "Noted.", "Thanks for telling me.", "Got it.", "I see.", "All right.", "Okay!", "Understood.",
    "I will keep it in mind.",
    "Good to know.", "How nice.", "Thank you, I have that.",
)  # fmt: skip
_BETWEEN = ("\n\n", "\n", " ")
_TO_LISTENER = MappingProxyType({
    "i was": "you were", "i am": "you are", "i'm": "you are", "i've": "you have", "i'd": "you'd",
    "i'll": "you will", "we've": "you have", "we'd": "you'd", "we're": "you are", "i": "you",
    "we": "you", "me": "you", "us": "you", "my": "your", "our": "your", "mine": "yours", "ours": "yours",
    "myself": "yourself", "ourselves": "yourselves",
})  # fmt: skip
_SPEAKER = re.compile(
    r"(?<![\w'])(" + "|".join(sorted(_TO_LISTENER, key=len, reverse=True)) + r")(?![\w'])", re.IGNORECASE
)
_ARTICLE = re.compile(r"\b(?:a|an|the)\s(?:\w+\s)?$", re.IGNORECASE)
"""What stands before a mine that is a hole in the ground."""


def told(text: str, draw: random.Random) -> str:
    """A telling as it might be typed."""
    text = _lead(text, LEADS, draw, 0.12)
    if draw.random() < 0.1:
        text = text.lower()
    if draw.random() < 0.08:
        text = slip(text, draw)
    if draw.random() < 0.12:
        text = text.rstrip(".")
    return text


def asked(text: str, draw: random.Random) -> str:
    """A question as it might be typed."""
    text = _lead(text, ASKING_LEADS, draw, 0.08)
    if draw.random() < 0.12:
        text = text.lower()
    if draw.random() < 0.1:
        text = text.rstrip("?")
    return slip(text, draw) if draw.random() < 0.05 else text


def slip(text: str, draw: random.Random) -> str:
    """Two neighbouring letters of a longer word exchanged, or one left out; never in a word with capitals or digits."""
    words = text.split(" ")
    places = [i for i, word in enumerate(words) if len(word) > 4 and word.isalpha() and word.islower()]
    if not places:
        return text
    at = draw.choice(places)
    word, cut = words[at], draw.randrange(1, len(words[at]) - 2)
    gone = draw.random() < 0.5
    words[at] = word[:cut] + word[cut + 1 :] if gone else word[:cut] + word[cut + 1] + word[cut] + word[cut + 2 :]
    return " ".join(words)


def before(telling: str, question: Question, draw: random.Random) -> Question:
    """The question with a telling in front of it, in one message."""
    return question._replace(prompt=f"{telling}{draw.choice(_BETWEEN)}{question.prompt}", kind="read")


def to_listener(text: str) -> str:
    """What a speaker says of himself, said to him: "my sofa" becomes "your sofa". Quotes and names stay as they are."""
    if '"' in text:
        return text

    def turned(match: re.Match[str]) -> str:
        word = match[1]
        is_name = word[0].isupper() and word[0] != "I"
        is_pit = word == "mine" and _ARTICLE.search(text[: match.start()])
        return word if is_name or is_pit else _TO_LISTENER[word.lower()]

    return _SPEAKER.sub(turned, text)


def filled(text: str, value: str, old: str = "") -> str:
    """The wording with its values, a capital at the start if the value brought it there."""
    done = text.replace("{v}", value).replace("{old}", old)
    starts = text.startswith(("{v}", "{old}"))
    return done[:1].upper() + done[1:] if starts else done


def _lead(text: str, leads: tuple[str, ...], draw: random.Random, share: float) -> str:
    if draw.random() >= share:
        return text
    first = text.split(" ", 1)[0]
    keeps = first in ("I", "I'm", "I've", "I'd", "I'll") or first[1:] != first[1:].lower() or not first[:1].isalpha()
    return draw.choice(leads) + (text if keeps else text[:1].lower() + text[1:])
