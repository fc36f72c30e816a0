"""Every CMS kernel variant compiled for sm_90, without a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def report():
    # A process of its own: the interpreter, once chosen, leaves nothing to compile.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-m", "support.cms_variants"],
        cwd=TESTS,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    print(run.stdout)
    return run.stdout.splitlines()


def test_no_variant_spills(report):
    kernels = [line for line in report if "registers" in line]
    assert len(kernels) >= 28
    assert not [line for line in kernels if "SPILLS" in line or "local 0 " not in line]


def test_decode_reads_the_deltas_in_whole_16_bytes_before_it_waits_for_the_projection(report):
    start = report.index(next(line for line in report if "r 16" in line and "delta torch.bfloat16" in line))
    line = next(line for line in report[start:] if "decode_kernel" in line)
    early = re.search(r"early loads (\d+)", line)
    assert early and int(early[1]) >= 8, line
