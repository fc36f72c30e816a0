"""Causal softmax attention of runs of new tokens over keys and values by slot."""

from hope_kernels.attention_prefill.op import attention_prefill

__all__ = ["attention_prefill"]
