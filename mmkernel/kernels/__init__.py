"""The mathematics of rotation-invariant kernels. Needs torch alone."""

from mmkernel.kernels.energy import kernel_energy, mmd2_to_uniform
from mmkernel.kernels.kernel import Kernel, PositiveDefiniteness, ProductKernel, ScaledKernel, SumKernel
from mmkernel.kernels.legendre import (
    gauss_gegenbauer,
    legendre_derivative,
    legendre_polynomial,
    legendre_polynomials,
    num_harmonics,
    quadrature_coefficients,
)
from mmkernel.kernels.library import LaplaceKernel, LegendreKernel, PolynomialKernel, RBFKernel, RieszKernel

__all__ = [
    'Kernel', 'LaplaceKernel', 'LegendreKernel', 'PolynomialKernel', 'PositiveDefiniteness', 'ProductKernel', 'RBFKernel',
    'RieszKernel', 'ScaledKernel', 'SumKernel', 'gauss_gegenbauer', 'kernel_energy', 'legendre_derivative',
    'legendre_polynomial', 'legendre_polynomials', 'mmd2_to_uniform', 'num_harmonics', 'quadrature_coefficients',
]  # fmt: skip
