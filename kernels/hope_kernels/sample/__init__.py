"""From logits to one token a row: every row by its own rules, and by one number that is its own."""

from hope_kernels.sample.op import sample
from hope_kernels.sample.rows import Sampled, SamplingRows
from hope_kernels.sample.uniform import uniform

__all__ = ["Sampled", "SamplingRows", "sample", "uniform"]
