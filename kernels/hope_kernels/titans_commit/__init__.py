"""Commit: the end of a chunk, when the ring becomes one write of the matrix."""

from hope_kernels.titans_commit.op import titans_commit

__all__ = ["titans_commit"]
