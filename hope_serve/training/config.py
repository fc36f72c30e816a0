"""What a training run is: model, data, episodes, schedule. One TOML file states all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from hope_serve.model.config import HopeConfig
from hope_serve.section import Range, Section

Share = Annotated[float, Range(0.0, 1.0)]
Weight = Annotated[float, Range(0.0, 1000.0)]
Rate = Annotated[float, Range(0.0, 10.0)]
Size = Annotated[int, Range(1, 2**24)]
Steps = Annotated[int, Range(1, 10**9)]


class DataConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the text is. Documents end with a line that holds only U+001E; paths are relative to the file."""

    tokenizer: Path
    train: tuple[Path, ...]
    valid: tuple[Path, ...]
    cache: Path | None = None
    workers: Annotated[int, Range(0, 256)] = 4


class ScheduleConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long and how fast. The run ends at whichever of seconds and steps comes first.

    ``text_share``: leading part of the run on plain text alone, before the first episode.
    ``*_from``: the part of the run after which such material joins, as a share of it.
    ``optimizer``: of the outer loss; ``m3`` moves the blocks' matrices by multi-scale momentum, the rest by AdamW.
    ``save_seconds``: how often to save what a later call goes on from, and a checkpoint as it stands.
    """

    seconds: Annotated[float, Range(0.0, 1e9)]
    steps: Steps = 10**9
    optimizer: Literal["adamw", "m3"] = "adamw"
    learning_rate: Rate = 1e-3
    rate_learning_rate: Rate = 1e-2
    final_share: Share = 0.05
    warmup_steps: Steps = 100
    weight_decay: Rate = 0.01
    clip_norm: Annotated[float, Range(1e-6, 1e6)] = 1.0
    text_share: Share = 0.15
    noise_from: Share = 0.3
    unknown_from: Share = 0.4
    log_every: Steps = 50
    evaluate_every: Steps = 500
    save_seconds: Annotated[float, Range(1.0, 1e9)] = 1e9
    evaluate_episodes: Annotated[int, Range(2, 4096)] = 64


class BatchConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of one step. An episode plan's batch is ``episode_tokens`` over the tokens it teaches.

    ``text_only_tokens``: of a row while the run is on text alone; short rows teach to read sooner. 0: as later.
    ``reading``: the share of text rows whose context must be read (``reading.Reading``), from the first step on.
    ``free``: the share of episodes told and asked in the words of ``lessons``.
    """

    text_rows: Size = 24
    text_tokens: Size = 512
    text_only_rows: Size = 64
    text_only_tokens: Annotated[int, Range(0, 2**24)] = 0
    episode_tokens: Size = 16384
    max_episodes: Size = 96
    reading: Share = 0.0
    free: Share = 0.0


class LossConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Weights of the outer loss's parts, each a mean over tokens.

    ``unknown``: questions about what was never told, asked with a memory; ``blank``: the same without any.
    """

    answer: Weight = 1.0
    taught: Weight = 0.3
    text: Weight = 0.5
    unknown: Weight = 0.05
    blank: Weight = 0.1


class TrainConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run.

    ``start_eta``: with which a neutral token of the checkpoint begun from writes into its Titans memories; 0 leaves it.
    ``read_dtype``: of the matrix products that read text and ask questions; what teaches a memory stays in 32 bit.
    """

    output: Path
    model: HopeConfig
    data: DataConfig
    schedule: ScheduleConfig
    batch: BatchConfig = BatchConfig()
    loss: LossConfig = LossConfig()
    seed: Annotated[int, Range(0, 2**31)] = 0
    device: str = "auto"
    start_from: Path | None = None
    start_eta: Share = 0.0
    cuda_graphs: bool = True
    read_dtype: Literal["float32", "bfloat16"] = "float32"

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        """Read a run from TOML; relative paths are taken from the file's folder.

        Raises:
            ValueError: a key is unknown or a value not allowed, or a file that it names is not there.
        """
        text = path.read_text(encoding="utf-8-sig")
        config = msgspec.toml.decode(text, type=cls, dec_hook=lambda kind, raw: path.parent / kind(raw))
        data = config.data
        for key, file in [
            ("tokenizer", data.tokenizer),
            *(("train", f) for f in data.train),
            *(("valid", f) for f in data.valid),
        ]:
            if not file.is_file():
                raise ValueError(f"data.{key}: {file} is not there; write a path from the folder of {path.name}")
        if config.start_eta >= (most := config.model.titans.eta_max):
            raise ValueError(f"start_eta is {config.start_eta}; it must be below model.titans.eta_max, {most}")
        return config
