"""How fast this machine serves, in one run; ratios compare measurements of the same run.

    python -m benchmarks.serving [--quick]                              the bundled checkpoint on this host
    python -m benchmarks.serving --device cuda [--sizes 1.3b,340m]      the engine's parts on a card, and their floors
    python -m benchmarks.serving --device cuda --reading                of these, prompts and lessons alone
    python -m benchmarks.serving --device cuda --load [--sizes 340m]    of these, what surrounds a step: gRPC, lessons
                                                                        beside streams, users in turn; two minutes

Prints tables and writes a dated file to benchmarks/results.
"""

from __future__ import annotations

import argparse
import asyncio

from benchmarks.report import write_report


def main() -> None:
    """Measure what the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer tokens and requests, nothing written")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--sizes", default="1.3b,340m", help="of the models on a card: %(default)s")
    parser.add_argument("--reading", action="store_true", help="on a card: prompts and lessons alone")
    parser.add_argument("--load", action="store_true", help="on a card: streams and users around a step alone")
    options = parser.parse_args()
    if options.device == "cpu":
        from benchmarks.serving.host import measure

        write_report("serving", asyncio.run(measure(quick=options.quick)), save=not options.quick)
        return
    from benchmarks.serving.card import measure_card, measure_load, measure_reading

    if options.reading:
        figures, profiles = measure_reading(options.sizes.split(","))
        write_report("reading-card", figures, save=not options.quick, notes=profiles)
        return
    if options.load:
        figures = measure_load(options.sizes.split(",")[-1], quick=options.quick)
        write_report("load-card", figures, save=not options.quick)
        return
    figures, profiles = measure_card(options.sizes.split(","), quick=options.quick)
    write_report("serving-card", figures, save=not options.quick, notes=profiles)


if __name__ == "__main__":
    main()
