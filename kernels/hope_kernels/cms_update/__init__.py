"""How what a sequence has learned changes: gradients gathered over a chunk, one write at its end."""

from hope_kernels.cms_update.layout import LevelPools, Rows
from hope_kernels.cms_update.op import cms_update

__all__ = ["LevelPools", "Rows", "cms_update"]
