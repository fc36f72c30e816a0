"""Tokens a second of vLLM, plain and with own weights for every user, and of this project's engine, on a card.

    python -m benchmarks.vllm --size smollm2 --engine plain|own|native [--out FILE] [--users 1000]
    python -m benchmarks.vllm --parity         the same replies and likelihoods as the native engine's

One engine a process, so that each has the card for itself. Figures go to the terminal and, as lines of JSON, to FILE.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.report import Figure, hardware
from benchmarks.vllm.driving import BATCHES, HISTORIES, Driven, returning, stream, together
from benchmarks.vllm.models import SHAPES


def main() -> None:
    """Measure what the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=tuple(SHAPES), default="smollm2")
    parser.add_argument("--engine", choices=("plain", "own", "native"), default="own")
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--slots", type=int, default=256, help="of the native engine")
    parser.add_argument("--context", type=int, default=1024, help="tokens of each of its slots")
    parser.add_argument("--histories", default=",".join(map(str, HISTORIES)), help="of everybody: %(default)s")
    parser.add_argument("--memory-share", type=float, default=0.85, help="of the card, for vLLM")
    parser.add_argument("--cards", type=int, default=1, help="among which vLLM divides every layer")
    parser.add_argument("--quick", action="store_true", help="few users and tokens: only the way is tried")
    parser.add_argument("--eager", action="store_true", help="no captured steps of vLLM")
    parser.add_argument("--parity", action="store_true")
    options = parser.parse_args()
    print(hardware(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for figure in _figures(options, Path(folder)):
            print(f"{figure.name}: {figure.spelled()} {figure.unit} {figure.target}", flush=True)
            if options.out:
                with options.out.open("a") as file:
                    file.write(json.dumps(vars(figure)) + "\n")


def _figures(options: argparse.Namespace, folder: Path) -> Iterator[Figure]:
    if options.parity:
        from benchmarks.vllm.parity import parity

        yield from parity(options.size, folder)
        return
    engine = _engine(options, folder)
    try:
        yield from _measured(engine, options)
    finally:
        engine.close()


def _measured(engine: Driven, options: argparse.Namespace) -> Iterator[Figure]:
    name = options.size
    yield Figure(f"{engine.name}, {name}: cache", engine.capacity, "tokens")
    stream(engine, name, options.users, requests=64)  # what is compiled or allocated for the first time counts nowhere
    yield returning(engine, name, 0)
    requests = 32 if options.quick else 1000
    many = stream(engine, name, options.users, requests=requests)
    yield many
    if options.engine == "plain":
        for history in () if options.quick else (2048, 8192):
            yield returning(engine, name, history)
    else:
        hot = stream(engine, name, 10, requests=requests)
        yield hot
        share = many.value / hot.value
        yield Figure(f"{engine.name}, {name}: {options.users} users over 10", share, "", ">= .9")
    histories = tuple(int(length) for length in options.histories.split(","))
    yield from together(engine, name, *(((1, 4), (40,)) if options.quick else (BATCHES, histories)))


def _engine(options: argparse.Namespace, folder: Path):
    if options.engine == "native":
        from benchmarks.vllm.engines import NativeDriven

        return NativeDriven(options.size, folder, users=options.users, slots=options.slots, context=options.context)
    from benchmarks.vllm.engines import VllmDriven

    return VllmDriven(
        options.size,
        folder,
        own=options.engine == "own",
        users=options.users,
        eager=options.eager,
        memory_share=options.memory_share,
        cards=options.cards,
    )


if __name__ == "__main__":
    main()
