"""Batches of lessons without end, drawn and tokenised by worker processes so that the device never waits."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from hope_serve.convert.source import Dialogue
from hope_serve.model.attention_learn import Told
from hope_serve.training.lessons.completions import completion_episode, continued_episode
from hope_serve.training.lessons.joined import Joined
from hope_serve.training.lessons.labelled import Labelled
from hope_serve.training.lessons.lesson import Adapt, Episode
from hope_serve.training.lessons.people import TOKENS_PER_WORD, WORDS_PER_FACT, People
from hope_serve.training.lessons.prose import Prose
from hope_serve.training.lessons.scenes import WORDS_PER_SCENE, Scenes
from hope_serve.training.parts.packing import (
    Bucket,
    DoesNotFit,
    Row,
    ask_row,
    in_turn,
    row_tensors,
    tell_row,
    told_tensors,
)
from hope_serve.training.parts.speech import Speech
from hope_serve.training.personas import Split

_AT_ONCE = frozenset({"completion", "joined", "continued"})
KINDS = ("facts", "scenes", "completion", "joined", "continued", "labelled")
SHARES = (0.3, 0.43, 0.09, 0.08, 0.04, 0.06)
"""Of the lessons: facts of people, what happened to them, sentences to complete, facts to join, texts to continue, and
examples with labels."""
NOISE_TOKENS = (48, 220)
NOISE_ENDS = 0.4
"""How likely it is, over a lesson's chunks, that no more is told after a passage."""
_TRIES = 60


class Batch(NamedTuple):
    """One batch of U lessons.

    told: [U, chunks, C]; taught: [U, chunks], whether a chunk holds anything; asked: [U, T]; other: [U, P].
    """

    bucket: str
    told: Told
    taught: Tensor
    asked: Told
    other: Tensor


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """What a stream of batches is drawn from. ``order``: the buckets of consecutive batches, over and over."""

    dialogue: Dialogue
    text: Path
    buckets: tuple[Bucket, ...]
    order: tuple[str, ...]
    seed: int
    first: int = 0


class LessonStream(IterableDataset[Batch]):
    """Every worker draws its own batches; batch i of the whole stream is of bucket ``order[i % len(order)]``."""

    def __init__(self, config: StreamConfig) -> None:
        self._config = config

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        torch.set_num_threads(1)
        config = self._config
        maker = BatchMaker(config.dialogue, config.text, seed=hash((config.seed, config.first, number)))
        buckets = {bucket.name: bucket for bucket in config.buckets}
        at = config.first + number
        while True:
            yield maker.batch(buckets[config.order[at % len(config.order)]])
            at += count


def loader(config: StreamConfig, *, workers: int, pin: bool) -> Iterator[Batch]:
    """Batches in the order of the stream."""
    stream = LessonStream(config)
    extra = {"prefetch_factor": 4, "multiprocessing_context": "fork"} if workers else {}
    return iter(DataLoader(stream, batch_size=None, num_workers=workers, pin_memory=pin, **extra))  # type: ignore[arg-type]


class BatchMaker:
    """Draws lessons and packs them."""

    def __init__(self, dialogue: Dialogue, text: Path, *, seed: int) -> None:
        self.draw = random.Random(seed)  # noqa: S311 - a reproducible draw, nothing secret
        self.speech = Speech(dialogue)
        self.prose = Prose.load(text, "train", self.draw)
        self.people = People(Split.TRAIN, self.prose, self.draw)
        self.joined = Joined(Split.TRAIN, self.draw)
        self.scenes = Scenes(Split.TRAIN, self.people, self.draw)
        self.labelled = Labelled(self.people.relations, Split.TRAIN, self.draw)

    def batch(self, bucket: Bucket) -> Batch:
        """One batch of the bucket's size."""
        lessons = [self._lesson(bucket) for _ in range(bucket.users)]
        while sum(weight > 0 for _, asked in lessons for weight in asked.mask) > bucket.users * bucket.answer_tokens:
            lessons = [self._lesson(bucket) for _ in range(bucket.users)]
        told = told_tensors([told for told, _ in lessons], bucket)
        others = [self._other(bucket.other_tokens) for _ in range(bucket.users)]
        return Batch(
            bucket=bucket.name,
            told=told,
            taught=(told.mask > 0).any(-1),
            asked=row_tensors([asked for _, asked in lessons], bucket.ask_tokens),
            other=torch.tensor(others),
        )

    def _lesson(self, bucket: Bucket) -> tuple[Row, Row]:
        """Told and asked row of one lesson; a lesson that turns out too long is drawn again, smaller."""
        kind = self.draw.choices(KINDS, SHARES)[0]
        several = bucket.past_chunks == 0 and bucket.fact_chunks > 1 and kind in _AT_ONCE
        for attempt in range(_TRIES):
            try:
                scale = 0.9**attempt
                episode = self._several(kind, bucket, scale) if several else self._episode(kind, bucket, scale)
                return self._packed(episode, bucket)
            except DoesNotFit:
                continue
        raise DoesNotFit(f"{_TRIES} lessons of kind {kind} were all too long for bucket {bucket.name}")

    def _episode(self, kind: str, bucket: Bucket, scale: float) -> Episode:
        """One lesson; ``scale``: of the room that is planned for."""
        words = max(14, int(scale * bucket.told_tokens / TOKENS_PER_WORD))
        if kind == "completion":
            most = max(1, words // 16)
            return completion_episode(self.prose, self.draw, num_sentences=self.draw.randint(1, most), max_words=words)
        if kind == "continued" and words > 60:
            return continued_episode(self.prose, max_words=min(int(words * 0.9), 120))
        if kind == "joined":
            return self.joined.episode(self.people, max_words=words)
        if kind == "labelled":
            return self.labelled.episode(max_words=words, max_adapts=bucket.fact_chunks)
        if kind == "scenes":
            count = self._count(bucket, words // WORDS_PER_SCENE)
            return self.scenes.episode(count, max_words=words, max_adapts=bucket.fact_chunks)
        count = self._count(bucket, words // WORDS_PER_FACT)
        return self.people.episode(count, max_words=words, max_adapts=bucket.fact_chunks)

    def _several(self, kind: str, bucket: Bucket, scale: float) -> Episode:
        """A lesson of a kind that is told at once amid scenes, a chunk each."""
        one = dataclasses.replace(bucket, fact_chunks=1)
        kinds = [kind, *["scenes"] * self.draw.randint(0, bucket.fact_chunks - 1)]
        episodes = [self._episode(each, one, scale) for each in self.draw.sample(kinds, len(kinds))]
        questions = [question for episode in episodes for question in episode.questions]
        self.draw.shuffle(questions)
        return Episode(
            adapts=tuple(adapt for episode in episodes for adapt in episode.adapts), questions=tuple(questions)
        )

    def _count(self, bucket: Bucket, most: int) -> int:
        """How many facts or scenes are told, at most about ``most``; a quarter of the lessons has few."""
        low, high = bucket.facts
        most = max(1, min(high, most))
        few = self.draw.random() < 0.25
        return self.draw.randint(1, min(3, most)) if few else self.draw.randint(min(low, most), most)

    def _packed(self, episode: Episode, bucket: Bucket) -> tuple[Row, Row]:
        told = [self.speech.told(adapt) for adapt in episode.adapts]
        opening = self.speech.opening(self.draw)
        asked = [self.speech.asked(question, opening) for question in episode.questions]
        row, _ = ask_row(self.speech.before(opening), asked, bucket.ask_tokens)
        return tell_row(told, noise=self._noise(bucket), bucket=bucket), row

    def _noise(self, bucket: Bucket) -> Iterator[list[int]]:
        """Texts told afterwards: always where chunks are there for it, else now and then."""
        if bucket.fact_chunks == bucket.chunks and self.draw.random() < 0.7:
            return
        if bucket.chunk_tokens < NOISE_TOKENS[0]:
            return
        passages = [self._passage(min(NOISE_TOKENS[1], bucket.chunk_tokens)) for _ in range(max(3, bucket.chunks // 2))]
        for ids in in_turn(passages, self.draw):
            yield ids
            if self.draw.random() < NOISE_ENDS / bucket.chunks:
                return

    def _passage(self, most: int) -> list[int]:
        length = self.draw.randint(NOISE_TOKENS[0], most)
        text = self.prose.passage(length * 5)
        adapt = Adapt(turns=(("user", text),)) if self.draw.random() < 0.2 else Adapt(text=text)
        return self.speech.told(adapt)[: most + 1]

    def _other(self, size: int) -> list[int]:
        """Unrelated text of exactly ``size`` ids: plain, or a message and the reply to it."""
        ids: list[int] = []
        while len(ids) < size:
            text = self.prose.run(size * 6)
            if self.draw.random() < 0.7:
                ids += self.speech.ids(text)
            else:
                ids += self.speech.prompt(text[:120]) + self.speech.ids(text[120:])
        return ids[:size]


def bucket_order(buckets: Sequence[Bucket], times: Sequence[int]) -> tuple[str, ...]:
    """Bucket names, each as often as asked, spread evenly."""
    places = [((i + 0.5) / n, bucket.name) for bucket, n in zip(buckets, times, strict=True) for i in range(n)]
    return tuple(name for _, name in sorted(places))


def mapped(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """The batch with every tensor changed."""
    return Batch(
        bucket=batch.bucket,
        told=Told(*map(change, batch.told)),
        taught=change(batch.taught),
        asked=Told(*map(change, batch.asked)),
        other=change(batch.other),
    )


def tensors(batch: Batch) -> tuple[Tensor, ...]:
    """All tensors of the batch, always in the same order."""
    return (*batch.told, batch.taught, *batch.asked, batch.other)


def moved(batch: Batch, device: str) -> Batch:
    """The batch's tensors on the device."""
    return mapped(batch, lambda t: t.to(device, non_blocking=True))


def pieces(batch: Batch, count: int) -> list[Batch]:
    """The batch's users in ``count`` groups."""
    size = -(-len(batch.taught) // count)

    def piece(at: int) -> Batch:
        return mapped(batch, lambda t: t[at : at + size])

    return [piece(at) for at in range(0, len(batch.taught), size)]
