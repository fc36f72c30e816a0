"""Every sampling kernel compiled for sm_90, without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.timeout(300)
def test_no_sampling_kernel_spills():
    # A process of its own: the interpreter, once chosen, leaves nothing to compile.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "support.sample_variants"]
    run = subprocess.run(command, cwd=TESTS, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    print(run.stdout)
    kernels = [line for line in run.stdout.splitlines() if "registers" in line]
    assert len(kernels) == 22
    assert not [line for line in kernels if "SPILLS" in line or "local 0 " not in line]
