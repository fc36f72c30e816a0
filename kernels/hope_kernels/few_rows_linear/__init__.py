"""A few rows times a matrix of weights."""

from hope_kernels.few_rows_linear.op import few_rows_linear

__all__ = ["few_rows_linear"]
