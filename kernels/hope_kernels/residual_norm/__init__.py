"""The residual stream's sum and its norm."""

from hope_kernels.residual_norm.op import residual_norm

__all__ = ["residual_norm"]
