"""Prints what the kernels of ``few_rows_linear`` do before they wait, and their units."""

from __future__ import annotations

import torch
from hope_kernels.few_rows_linear.launch import launch_few_rows_linear
from support.sm90 import variants

WAIT = "ACQBULK"


def main():
    weight = torch.empty(2048, 2048, dtype=torch.bfloat16)
    for count in (1, 16):
        x = torch.empty(count, 2048, dtype=torch.bfloat16)
        for variant in variants(lambda x=x: launch_few_rows_linear(x, weight, torch.bfloat16)):
            before, wait, _ = variant.sass.partition(WAIT)
            assert wait, f"{variant.name} never waits"
            units = " ".join(f"{unit} {f' {unit}.' in variant.sass}" for unit in ("HMMA", "HGMMA"))
            print(f"{variant}; loads before the wait {before.count('LDG.E')} {units}")


if __name__ == "__main__":
    main()
