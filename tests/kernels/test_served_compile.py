"""Every kernel between a served model's products compiled for sm_90, without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("op", "count"), [("residual_norm", 8), ("conv_silu", 12), ("cms_delta_projected", 20)])
def test_no_kernel_spills(op, count):
    # A process of its own: the interpreter, once chosen, leaves nothing to compile.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "support.served_variants", op]
    run = subprocess.run(command, cwd=TESTS, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    print(run.stdout)
    kernels = [line for line in run.stdout.splitlines() if "registers" in line]
    assert len(kernels) == count
    assert not [line for line in kernels if "SPILLS" in line or "local 0 " not in line]
