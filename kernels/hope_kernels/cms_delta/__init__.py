"""What a sequence's own delta adds to a shared matrix."""

from hope_kernels.cms_delta.op import cms_delta

__all__ = ["cms_delta"]
