"""Where a model runs."""

from __future__ import annotations

import torch

from hope_serve.config import ConfigError


def chosen_device(name: str) -> str:
    """The device that ``name`` stands for; auto is a CUDA device if there is one.

    Raises:
        ConfigError: this machine has no such device.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    have = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name not in have and not (name == "cuda" and len(have) > 1):
        raise ConfigError(f"model.device is {name!r}; this machine has {', '.join(have)}")
    return name
