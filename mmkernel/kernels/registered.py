"""Puts the library's kernels into KERNELS; apart from ``library.py`` so that ``import mmkernel.kernels`` needs torch alone."""

from mmkernel.kernels import kernel, library
from mmkernel.registry import KERNELS

for _kernel in (
    library.LegendreKernel,
    library.RBFKernel,
    library.RieszKernel,
    library.LaplaceKernel,
    library.PolynomialKernel,
    kernel.SumKernel,
    kernel.ScaledKernel,
    kernel.ProductKernel,
):
    KERNELS.register_module(module=_kernel)
