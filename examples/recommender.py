"""A recommender that learns tastes from a stream: what was liked is taught, what is new is ranked by likelihood.

Everybody likes two kinds, and no more words are given than "I loved it." and "I was bored." Titles that nobody heard of
are ranked by how much likelier "I loved it." is than "I was bored." with the person's memory. Beside it: the same model
without a memory, and a table that counts kinds, which on data this clean cannot be beaten.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple
from uuid import uuid4

from served import options, served

from hope_serve.client import HopeClient

KINDS = ("western", "musical", "comedy", "thriller", "documentary", "romance", "cartoon", "war film")
FIRST = ("Silent", "Golden", "Last", "Hidden", "Broken", "Distant", "Burning", "Little", "Blue", "Second")
THEN = ("River", "Garden", "Letter", "Station", "Harbour", "Winter", "Promise", "Mirror", "Orchard", "Train")
LOVED, BORED = " I loved it.", " I was bored."
TASTES = 2


class Film(NamedTuple):
    """A title and its kind."""

    title: str
    kind: str

    def watched(self) -> str:
        """How a person begins to tell of it."""
        return f'I watched "{self.title}", a {self.kind}.'


class Taste(NamedTuple):
    """Somebody: the kinds they like, what they have seen, and what is new to them."""

    kinds: tuple[str, ...]
    seen: tuple[Film, ...]
    new: tuple[Film, ...]


def tastes(people: int, events: int, draw: random.Random) -> list[Taste]:
    """People with different titles on both sides."""
    made = []
    for _ in range(people):
        liked = tuple(draw.sample(KINDS, TASTES))
        titles = draw.sample([f"{one} {other}" for one in FIRST for other in THEN], events + 8)
        others = [kind for kind in KINDS if kind not in liked]
        kinds = [draw.choice(liked) if at % 2 else draw.choice(others) for at in range(len(titles))]
        films = [Film(title, kind) for title, kind in zip(titles, kinds, strict=True)]
        made.append(Taste(liked, tuple(films[:events]), tuple(films[events:])))
    return made


def teach(client: HopeClient, user: str, taste: Taste, *, batch: int = 8) -> None:
    """The stream, a few events an Adapt, as they would come in."""
    told = [film.watched() + (LOVED if film.kind in taste.kinds else BORED) for film in taste.seen]
    for at in range(0, len(told), batch):
        client.adapt(user, " ".join(told[at : at + batch]))


def liking(client: HopeClient, user: str, film: Film) -> float:
    """How much likelier "I loved it." is than "I was bored.", in nats."""
    loved, bored = client.score(film.watched(), [LOVED, BORED], user_id=user)
    return loved.logprob - bored.logprob


def pairs_in_order(taste: Taste, score: Callable[[Film], float]) -> float:
    """Of all pairs of a new film that is liked and one that is not, the share that is ranked right (AUC)."""
    scores = [(score(film), film.kind in taste.kinds) for film in taste.new]
    liked, others = [s for s, good in scores if good], [s for s, good in scores if not good]
    return sum((a > b) + 0.5 * (a == b) for a in liked for b in others) / (len(liked) * len(others))


def counted(taste: Taste) -> Callable[[Film], float]:
    """The obvious rival: how often a kind was liked."""
    table = Counter(film.kind for film in taste.seen if film.kind in taste.kinds)
    return lambda film: float(table[film.kind])


def play(target: str, *, people: int = 6, events: int = 24, seed: int = 1) -> dict[str, float]:
    """Teach everybody and rank what is new to them; shares of pairs in the right order, by way of ranking."""
    draw = random.Random(seed)  # noqa: S311 - a reproducible draw, nothing secret
    ways: dict[str, list[float]] = {"memory": [], "no memory": [], "counting kinds": []}
    with HopeClient(target) as client:
        for taste in tastes(people, events, draw):
            user = f"taste-{uuid4().hex[:8]}"
            teach(client, user, taste)
            scores: Sequence[Callable[[Film], float]] = (
                lambda film, u=user: liking(client, u, film),  # type: ignore[misc]
                lambda film: liking(client, "", film),
                counted(taste),
            )
            for way, score in zip(ways, scores, strict=True):
                ways[way].append(pairs_in_order(taste, score))
            client.delete_memory(user)
    shares = {way: sum(found) / len(found) for way, found in ways.items()}
    for way, share in shares.items():
        print(f"{way:16} {share:6.1%} of pairs in the right order")
    return shares


if __name__ == "__main__":
    given = options(str(__doc__)).parse_args()
    with served(given.target, given.checkpoint) as address:
        play(address)
