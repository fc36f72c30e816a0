"""The short convolution before Titans, over slots that remember their last inputs."""

from hope_kernels.conv_silu.op import conv_silu

__all__ = ["conv_silu"]
