"""Tensor operations of HOPE models: reference forms in torch, kernels in Triton, nothing of any server."""
