"""Batches made by worker processes while the device computes."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from hope_serve.tokenizer import Tokenizer
from hope_serve.training.config import BatchConfig, TrainConfig
from hope_serve.training.episodes import EpisodeBuilder, Episodes
from hope_serve.training.lessons.people import People
from hope_serve.training.lessons.prose import Prose
from hope_serve.training.personas import PersonaFactory, Split
from hope_serve.training.plans import EVERY_PLAN, FREE_PLANS, PLANS, Plan
from hope_serve.training.reading import Reading
from hope_serve.training.text import Ids, TextWindows

INVENTED = 0.35
CONVERSATION_ONE_IN = 6
PROSE_CHARACTERS = 10_000_000
"""Of every file, for lessons that need sentences and not ids."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step's material: rows of text [rows, tokens + 1] with their targets' weights [rows, tokens], and episodes
    unless the step is text alone.
    """

    text: Tensor
    weights: Tensor
    plan: Plan | None
    episodes: Episodes | None


def episodes_in(plan: Plan, config: BatchConfig) -> int:
    """How many episodes of ``plan`` make a batch."""
    return max(1, min(config.max_episodes, config.episode_tokens // plan.tokens))


class BatchStream:
    """An endless stream of batches that follows the run's progress, a number in [0, 1].

    A batch depends on the run's seed, its own number and the progress alone, so that a run which goes on from
    ``first`` gets what it would have got without a stop. With ``text_alone`` it is the same text without episodes.
    """

    def __init__(self, config: TrainConfig, ids: Ids, *, first: int, progress: float, text_alone: bool = False) -> None:
        self._progress = multiprocessing.Value("d", progress)
        dataset = _Dataset(config, ids, self._progress, first, text_alone=text_alone)
        workers = config.data.workers
        self._loader = DataLoader(dataset, batch_size=None, num_workers=workers, prefetch_factor=2 if workers else None)

    def __iter__(self) -> Iterator[Batch]:
        for index, tensors in self._loader:
            if index < 0:
                yield Batch(text=tensors[0], weights=tensors[1], plan=None, episodes=None)
            else:
                plan = EVERY_PLAN[index]
                yield Batch(text=tensors[0], weights=tensors[1], plan=plan, episodes=unpack(plan, tensors[2:]))

    def advance(self, progress: float) -> None:
        """Tell the workers how far the run is."""
        self._progress.value = progress


def unpack(plan: Plan, tensors: list[Tensor]) -> Episodes:
    """``Episodes.tensors`` backwards."""
    count = len(plan.stages)
    rest = tensors[2 * count :]
    return Episodes(
        stages=tensors[:count],
        masks=tensors[count : 2 * count],
        questions=rest[0],
        answer_weight=rest[1],
        value_mask=rest[2],
        age=rest[3],
        corrected=rest[4],
    )


class _Dataset(IterableDataset[tuple[int, list[Tensor]]]):
    """Draws batches in a worker; ``index`` -1 marks text alone."""

    def __init__(self, config: TrainConfig, ids: Ids, progress: Any, first: int, *, text_alone: bool) -> None:
        self._config, self._ids, self._progress, self._first = config, ids, progress, first
        self._text_alone = text_alone

    def __iter__(self) -> Iterator[tuple[int, list[Tensor]]]:
        info = get_worker_info()
        if info:
            torch.set_num_threads(1)
        seed = self._config.seed
        tokenizer = Tokenizer.load(self._config.data.tokenizer)
        windows = TextWindows(self._ids, tokenizer, seed=seed)
        people = PersonaFactory(Split.TRAIN, seed=seed, invented=INVENTED)
        sizes = self._config.batch
        prose = self._prose(people.draw) if sizes.reading or sizes.free else None
        free = People(Split.TRAIN, prose, people.draw) if prose and sizes.free else None
        builder = EpisodeBuilder(tokenizer, people, windows.draw, free)
        reading = Reading(tokenizer, people, windows.draw, prose)
        # The loader takes one batch of every worker in turn.
        for number in count(self._first + (info.id if info else 0), info.num_workers if info else 1):
            windows.reseed(seed, number)
            people.draw.seed(f"{seed} {number}")
            yield self._batch(builder, reading, windows, people.draw, number)

    def _batch(
        self, builder: EpisodeBuilder, reading: Reading, windows: TextWindows, draw: random.Random, number: int
    ) -> tuple[int, list[Tensor]]:
        schedule, sizes = self._config.schedule, self._config.batch
        # Batches are made ahead of their turn: a run that ends by steps knows how far it will be then.
        progress = max(self._progress.value, number / schedule.steps)
        alone = progress < schedule.text_share
        rows = sizes.text_only_rows if alone else sizes.text_rows
        tokens = sizes.text_only_tokens or sizes.text_tokens if alone else sizes.text_tokens
        text = torch.from_numpy(windows.batch(rows, tokens + 1))
        for row in range(1, 0 if alone else rows, CONVERSATION_ONE_IN):
            text[row] = torch.tensor(builder.conversation(tokens + 1))
        weights = torch.ones(rows, tokens)
        for row in draw.sample(range(rows), round(rows * sizes.reading)):
            read = reading.row(tokens + 1)
            text[row], weights[row] = torch.tensor(read.ids), torch.tensor(read.weights[1:])
        if alone or self._text_alone:
            return -1, [text, weights]
        plans = [p for p in PLANS if progress >= schedule.noise_from or not p.needs_noise]
        plans = list(FREE_PLANS) if draw.random() < sizes.free else plans
        plan = draw.choices(plans, [p.share for p in plans])[0]
        return EVERY_PLAN.index(plan), [text, weights, *builder.build(plan, episodes_in(plan, sizes)).tensors()]

    def _prose(self, draw: random.Random) -> Prose:
        texts = {}
        for path in self._config.data.train:
            with path.open(encoding="utf-8") as file:
                texts[path.stem.partition("_")[0]] = file.read(PROSE_CHARACTERS)
        return Prose(texts, draw)
