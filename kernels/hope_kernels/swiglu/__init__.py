"""A gated unit: the silu of one half times the other."""

from hope_kernels.swiglu.op import swiglu

__all__ = ["swiglu"]
