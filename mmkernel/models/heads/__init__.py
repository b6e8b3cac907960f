"""One file per family of objectives; each reads like the paper's pseudocode."""

from mmkernel.models.heads.head import Head
from mmkernel.models.heads.kernel_mmd import KernelMMDHead

__all__ = ['Head', 'KernelMMDHead']
