"""The mathematics of rotation-invariant kernels. Needs torch alone."""

from mmkernel.kernels.composites import ProductKernel, ScaledKernel, SumKernel
from mmkernel.kernels.distances import InverseMultiquadricKernel, LaplaceKernel, RieszKernel
from mmkernel.kernels.energy import NullBand, kernel_energy, mmd2_to_uniform, null_band, profile_variance
from mmkernel.kernels.gaussians import EppsPulleyKernel, EppsPulleyKnotsKernel, GaussianMixtureKernel, RBFKernel
from mmkernel.kernels.kernel import Kernel, PositiveDefiniteness
from mmkernel.kernels.legendre import (
    gauss_gegenbauer,
    legendre_derivative,
    legendre_polynomial,
    legendre_polynomials,
    num_harmonics,
    quadrature_coefficients,
)
from mmkernel.kernels.library import ArcCosineKernel, PolynomialKernel
from mmkernel.kernels.normal import mmd2_to_normal, null_band_to_normal
from mmkernel.kernels.radial import RadialKernel
from mmkernel.kernels.series import BandlimitedKernel, HeatKernel, LegendreKernel, SeriesKernel
from mmkernel.kernels.stein import SteinKernel, stein
