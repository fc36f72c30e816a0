"""Decode: one token of every sequence."""

from hope_kernels.titans_decode.op import titans_decode

__all__ = ["titans_decode"]
