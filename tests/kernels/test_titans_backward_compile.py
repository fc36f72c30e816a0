"""Every kernel of chunk's backward compiled for sm_90, without a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
# Bytes a thread that ptxas may spill, at D = 128; README.md of titans_chunk says so, too.
SPILLED = {"scale_kernel": 0, "backward_read_kernel": 128, "backward_solve_kernel": 136, "backward_write_kernel": 192}


@pytest.mark.timeout(300)
def test_no_kernel_spills_more_than_is_known():
    # A process of its own: the interpreter, once chosen, leaves nothing to compile.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "support.titans_backward_variants"]
    run = subprocess.run(command, cwd=TESTS, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    print(run.stdout)
    kernels = re.findall(r"(\w+_kernel) .* local (\d+) ", run.stdout)
    assert len(kernels) == 20
    assert not [(name, spilled) for name, spilled in kernels if int(spilled) > SPILLED[name]]
