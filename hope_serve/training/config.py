"""What a training run is: model, data, episodes, schedule. One TOML file states all of it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from hope_serve.model.config import HopeConfig


class DataConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the text is. Documents end with a line that holds only U+001E; paths are relative to the file."""

    tokenizer: Path
    train: tuple[Path, ...]
    valid: tuple[Path, ...]
    cache: Path | None = None
    workers: int = 4


class ScheduleConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long and how fast. The run ends at whichever of seconds and steps comes first.

    ``text_share``: leading part of the run on plain text alone, before the first episode.
    ``*_from``: the part of the run after which such material joins, as a share of it.
    """

    seconds: float
    steps: int = 10**9
    learning_rate: float = 1e-3
    rate_learning_rate: float = 1e-2
    final_share: float = 0.05
    warmup_steps: int = 100
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    text_share: float = 0.15
    noise_from: float = 0.3
    unknown_from: float = 0.4
    log_every: int = 50
    evaluate_every: int = 500


class BatchConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of one step. An episode plan's batch is ``episode_tokens`` over the tokens it teaches."""

    text_rows: int = 24
    text_tokens: int = 512
    text_only_rows: int = 64
    episode_tokens: int = 16384
    max_episodes: int = 96


class LossConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Weights of the outer loss's parts, each a mean over tokens.

    ``unknown``: questions about what was never told, asked with a memory; ``blank``: the same without any.
    """

    answer: float = 1.0
    taught: float = 0.3
    text: float = 0.5
    unknown: float = 0.05
    blank: float = 0.1


class TrainConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run."""

    output: Path
    model: HopeConfig
    data: DataConfig
    schedule: ScheduleConfig
    batch: BatchConfig = BatchConfig()
    loss: LossConfig = LossConfig()
    seed: int = 0
    device: str = "auto"
    start_from: Path | None = None
    cuda_graphs: bool = True

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        """Read a run from TOML; relative paths are taken from the file's folder.

        Raises:
            ValueError: a key is unknown or a value not allowed.
        """
        return msgspec.toml.decode(path.read_bytes(), type=cls, dec_hook=lambda kind, raw: path.parent / kind(raw))
