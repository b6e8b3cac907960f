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
from mmkernel.kernels.uniformity import NullBand, null_band, profile_variance

__all__ = [
    'Kernel', 'LaplaceKernel', 'LegendreKernel', 'NullBand', 'PolynomialKernel', 'PositiveDefiniteness',
    'ProductKernel', 'RBFKernel', 'RieszKernel', 'ScaledKernel', 'SumKernel', 'gauss_gegenbauer', 'kernel_energy',
    'legendre_derivative', 'legendre_polynomial', 'legendre_polynomials', 'mmd2_to_uniform', 'null_band',
    'num_harmonics', 'profile_variance', 'quadrature_coefficients',
]  # fmt: skip
