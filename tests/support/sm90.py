"""Compiles every kernel that a call would launch for sm_90, on a machine without a GPU, and reads what ptxas says."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


@dataclass(frozen=True)
class Variant:
    """One compiled kernel: what a thread and a block of it take."""

    name: str
    warps: int
    registers: int
    local_bytes: int
    spilled: bool
    shared_bytes: int
    wide_loads: int
    sass: str
    kernel: object

    def __str__(self):
        flag = " SPILLS" if self.spilled else ""
        return (
            f"{self.name:28} warps {self.warps} registers {self.registers:3} shared {self.shared_bytes:6} "
            f"local {self.local_bytes} wide loads {self.wide_loads}{flag}"
        )


class _Target:
    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


def chosen(cases):
    """The cases, or with ``--some`` on the command line every second: the lists have sizes and dtypes mixed."""
    return cases[::2] if "--some" in sys.argv else cases


@contextmanager
def sm90():
    """Inside it launches compile and are listed instead of run."""
    launched, run = [], JITFunction.run

    def compile_only(self, *args, grid, warmup, **kwargs):
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        launched.append(kernel)
        return kernel

    driver.set_active(_Target())
    JITFunction.run = compile_only
    try:
        yield launched
    finally:
        JITFunction.run = run


def variants(call):
    """The distinct kernels that ``call()`` launches."""
    with sm90() as launched:
        call()
    return [describe(kernel) for kernel in dict.fromkeys(launched)]


def describe(kernel):
    """Registers, memory and instructions of a compiled kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage = subprocess.run([CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
        sass = subprocess.run([CUOBJDUMP, "-sass", file.name], capture_output=True, text=True, check=True).stdout
    counts = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    return Variant(
        name=kernel.metadata.name,
        warps=kernel.metadata.num_warps,
        registers=counts["REG"],
        local_bytes=counts["STACK"] + counts["LOCAL"],
        spilled=bool(re.search(r"\b(LDL|STL)\b", sass)),
        shared_bytes=kernel.metadata.shared,
        wide_loads=len(re.findall(r"LDG\.E\S*\.128|LDGSTS\S*\.128", sass)),
        sass=sass,
        kernel=kernel,
    )
