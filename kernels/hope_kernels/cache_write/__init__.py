"""Rotary positions, and keys and values into their slots."""

from hope_kernels.cache_write.op import cache_write
from hope_kernels.cache_write.rotations import rotation_tables

__all__ = ["cache_write", "rotation_tables"]
