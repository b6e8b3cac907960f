"""The mathematics of rotation-invariant kernels. Needs torch alone."""

from mmkernel.kernels.composites import ProductKernel, ScaledKernel, SumKernel
from mmkernel.kernels.energy import NullBand, kernel_energy, mmd2_to_uniform, null_band, profile_variance
from mmkernel.kernels.kernel import Kernel, PositiveDefiniteness
from mmkernel.kernels.legendre import (
    gauss_gegenbauer,
    legendre_derivative,
    legendre_polynomial,
    legendre_polynomials,
    num_harmonics,
    quadrature_coefficients,
)
from mmkernel.kernels.library import LaplaceKernel, LegendreKernel, PolynomialKernel, RBFKernel, RieszKernel
