"""Every decode kernel compiled for sm_90, without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.timeout(300)
def test_no_decode_kernel_spills():
    # Processes of their own: the interpreter, once chosen, leaves nothing to compile.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "support.decode_variants"]
    pipes = dict(cwd=TESTS, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    running = [subprocess.Popen([*command, memory], **pipes) for memory in ("linear", "mlp")]
    printed = ""
    for process in running:
        out, err = process.communicate()
        assert process.returncode == 0, err
        printed += out
    print(printed)
    kernels = [line for line in printed.splitlines() if "registers" in line]
    assert len(kernels) == 42
    assert not [line for line in kernels if "SPILLS" in line or "local 0 " not in line]
