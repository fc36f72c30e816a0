"""The command line of meta-training."""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path
from typing import NoReturn

import torch

PATHS = frozenset({"base", "text", "out", "start_from"})


def from_toml(path: Path) -> argparse.Namespace:
    """The same options from a TOML file: ``stop_after = 500`` is ``--stop-after 500``; paths are relative to the file.

    Raises:
        ValueError: a key that is no option, a value that is not allowed, or a needed option left out.
    """
    arguments: list[str] = []
    for key, value in tomllib.loads(path.read_text("utf-8")).items():
        if isinstance(value, bool):
            arguments += [f"--{key.replace('_', '-')}"] if value else []
            continue
        relative = path.parent / value if key in PATHS else value
        arguments += [f"--{key.replace('_', '-')}", str(relative)]
    return parse(arguments)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = _Parser(
        prog="python -m hope_serve.training.parts.train", description="Train a memory part.", allow_abbrev=False
    )
    parser.add_argument("--base", type=Path, required=True, help="GGUF file or folder of the frozen base")
    parser.add_argument("--text", type=Path, required=True, help="folder of *_train.txt and *_test.txt")
    parser.add_argument("--out", type=Path, required=True, help="the part; its state is kept beside it")
    parser.add_argument("--start-from", type=Path, help="a part to go on from, with a fresh optimizer")
    parser.add_argument("--seconds", type=float, default=1200, help="length of the whole schedule")
    parser.add_argument("--steps", type=int, default=10**9, help="the schedule's end in steps, if that comes first")
    parser.add_argument("--stop-after", type=float, default=1e9, help="seconds after which this call saves and ends")
    parser.add_argument("--save-every", type=float, default=60, help="seconds between saves of the part")
    parser.add_argument("--log-every", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=60)
    parser.add_argument("--batches-a-step", type=int, default=2)
    parser.add_argument("--users-divisor", type=int, default=1)
    parser.add_argument("--general-rows", type=int, default=384)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--start-rank", type=int, default=40)
    parser.add_argument("--rate", type=float, default=1.0, help="scale of all learning rates")
    parser.add_argument("--guard", type=float, default=3.0, help="weight of the KL to the base, with an empty memory")
    parser.add_argument("--guard-strange", type=float, default=1.0, help="the same with a memory of something else")
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="fuse pointwise operations (needs a C compiler)")
    parser.add_argument("--graphs", action="store_true", help="capture every kind of batch as a CUDA graph")
    parser.add_argument("--profile-steps", type=int, default=0, help="time each kind of batch so often, and end")
    parser.add_argument("--evaluate", action="store_true", help="print the table at the end of this call")
    parser.add_argument("--evaluate-scale", type=float, default=1.0, help="share of the held-out people asked")
    return parser.parse_args(arguments)


class _Parser(argparse.ArgumentParser):
    """Names what is wrong instead of ending the program."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see --help")
