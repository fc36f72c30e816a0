"""What a sequence's own delta adds to a shared matrix."""

from hope_kernels.cms_delta.op import cms_delta
from hope_kernels.cms_delta.projected_op import cms_delta_projected

__all__ = ["cms_delta", "cms_delta_projected"]
