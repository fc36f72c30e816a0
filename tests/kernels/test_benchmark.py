"""The benchmark of the kernels, rehearsed: every line of it runs on tiny sizes before a GPU's time is spent on it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

FIGURES = ("1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11")


@pytest.mark.skipif(torch.cuda.is_available(), reason="the benchmark itself can run here")
@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_of_the_kernel_benchmark_runs(figure, monkeypatch, capsys):
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    from benchmarks.kernels.__main__ import FIGURES as KNOWN
    from benchmarks.kernels.__main__ import SWEEPS, attempt
    from benchmarks.kernels.bench import TINY, Bench, Mode

    assert set(KNOWN) == set(FIGURES)
    bench = Bench(mode=Mode.REHEARSE, sizes=TINY)
    rows = [row for section in (*KNOWN[figure], *SWEEPS.get(figure, ())) for row in attempt(section, bench)]
    failed = [row.case for row in rows if row.figure == "failed" and not (peer_is_missing() and "'fla'" in row.case)]
    assert not failed, capsys.readouterr().err
    assert all(row.met for row in rows if row.figure == "check")


def peer_is_missing():
    return find_spec("fla") is None
