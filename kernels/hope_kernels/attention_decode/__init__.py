"""Softmax attention of one new token a sequence over keys and values by slot."""

from hope_kernels.attention_decode.op import attention_decode

__all__ = ["attention_decode"]
