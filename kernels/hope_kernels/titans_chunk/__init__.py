"""Chunk: prefill and Adapt, many tokens of many sequences."""

from hope_kernels.titans_chunk.op import titans_chunk

__all__ = ["titans_chunk"]
