"""Every kernel of commit and of chunk compiled for sm_90, without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("op", "least"), [("commit", 10), ("mlp_commit", 33), ("chunk", 27)])
def test_no_kernel_spills(op, least):
    # A process of its own: the interpreter, once chosen, leaves nothing to compile.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "support.titans_variants", op]
    run = subprocess.run(command, cwd=TESTS, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    print(run.stdout)
    kernels = [line for line in run.stdout.splitlines() if "registers" in line]
    assert len(kernels) >= least
    assert not [line for line in kernels if "SPILLS" in line or "local 0 " not in line]
