"""Compiles every kernel that a call would launch for sm_90, on a machine without a GPU, and reads what ptxas says."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
SOME = "--some" in sys.argv


@dataclass(frozen=True)
class Variant:
    """One compiled kernel: what a thread and a block of it take."""

    name: str
    warps: int
    registers: int
    local_bytes: int
    shared_bytes: int
    kernel: object

    @cached_property
    def sass(self) -> str:
        """Its instructions; to ask for them takes half a second."""
        return disassembled(self.kernel, "-sass")

    @property
    def spilled(self) -> bool:
        """Whether registers go to local memory; with all cases wanted, by its instructions as well."""
        return self.local_bytes > 0 or (not SOME and bool(re.search(r"\b(LDL|STL)\b", self.sass)))

    def asks_for(self, ptx, sass):
        """Whether it has this instruction: by what the assembler is given, or with all cases by what it makes of it."""
        return ptx in self.kernel.asm["ptx"] if SOME else sass in self.sass

    def __str__(self):
        flag = " SPILLS" if self.spilled else ""
        return (
            f"{self.name:28} warps {self.warps} registers {self.registers:3} shared {self.shared_bytes:6} "
            f"local {self.local_bytes}{flag}"
        )


class _Target:
    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


def chosen(cases):
    """The cases, or with ``--some`` on the command line every fourth: the lists have sizes and dtypes mixed."""
    return cases[::4] if SOME else cases


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
    """Registers and memory of a compiled kernel."""
    counts = {
        key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", disassembled(kernel, "-res-usage"))
    }
    return Variant(
        name=kernel.metadata.name,
        warps=kernel.metadata.num_warps,
        registers=counts["REG"],
        local_bytes=counts["STACK"] + counts["LOCAL"],
        shared_bytes=kernel.metadata.shared,
        kernel=kernel,
    )


def disassembled(kernel, part):
    """What cuobjdump says of a compiled kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        return subprocess.run([CUOBJDUMP, part, file.name], capture_output=True, text=True, check=True).stdout
