"""What the compiler makes of kernels for sm_90, asked in a process of its own: the interpreter, once chosen, leaves
nothing to compile. Triton keeps what it compiled by its source, so that a second run compiles what has changed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

SOME, ALL = "--some", "--all"
EXTENTS = (SOME, pytest.param(ALL, marks=pytest.mark.nightly))
"""Every fourth case of each list, or the lists."""


def compiled(program, *arguments):
    """The kernels, a line each, that ``python -m support.PROGRAM`` prints; none of them may spill.

    A program may print the kernels of several ops, each line after its op's name: a process takes seconds to begin.
    """
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", f"support.{program}", *arguments]
    tests = Path(__file__).parents[1]
    run = subprocess.run(command, cwd=tests, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    print(run.stdout)
    kernels = [line for line in run.stdout.splitlines() if "registers" in line]
    assert not [line for line in kernels if "SPILLS" in line or not re.search(r"\blocal 0\b", line)]
    return kernels


def counted(kernels):
    """How many kernels each op has, by the first word of their lines."""
    return Counter(kernel.split()[0] for kernel in kernels)
