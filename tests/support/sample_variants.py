"""Prints what ptxas makes of every sampling kernel for sm_90; `python -m support.sample_variants`, no interpreter."""

from __future__ import annotations

import torch
from hope_kernels.sample import SamplingRows
from hope_kernels.sample.launch import launch_sample
from support.sm90 import chosen, variants

CASES = [  # V, logits, stops, biases, num_top
    (32000, torch.float32, 8, 300, 20),
    (32000, torch.bfloat16, 8, 64, 1),
    (160000, torch.float32, 8, 64, 20),
    (160000, torch.bfloat16, 0, 0, 5),
    (1000, torch.float16, 3, 5, 3),
    (50, torch.float32, 0, 1, 0),
]


def main():
    for vocab_size, dtype, stops, biases, num_top in chosen(CASES):
        print(f"V {vocab_size} {dtype} stops {stops} biases {biases} top {num_top}")
        rows = SamplingRows.fresh(3, vocab_size, max_stops=stops, max_biases=biases)
        logits, slots = torch.zeros(2, vocab_size, dtype=dtype), torch.tensor([1, 0], dtype=torch.int32)
        for variant in variants(lambda a=(logits, slots, rows, num_top): launch_sample(*a)):
            print(f"  {variant}")


if __name__ == "__main__":
    main()
