"""Gradients with half-precision products, over kernels, precisions and scales: nothing underflows on its way."""

import pytest
import torch

from mmkernel.kernels import (
    Kernel,
    LaplaceKernel,
    LegendreKernel,
    PolynomialKernel,
    RBFKernel,
    RieszKernel,
    kernel_energy,
)


class Steep(Kernel):
    """phi(t) = 1e-9 exp(12 t): its slopes lie below what float16 holds."""

    def phi(self, t, q):
        return 1e-9 * (12 * t).exp()


KERNELS = [
    *(RBFKernel(scale) for scale in (0.5, 2.0, 10.0, 20.0, 40.0)),
    *(LaplaceKernel(scale) for scale in (1.0, 8.0)),
    *(RieszKernel(exponent) for exponent in (0.5, 1.0, 1.5)),
    LegendreKernel((1.0, 40.0, 40.0)),
    LegendreKernel((0.0, 0.0, 1.0)),
    LegendreKernel((0.0, 0.0, 0.0, 0.0, 1.0)),
    1e-7 * LegendreKernel((1.0, 40.0, 40.0)),
    1e7 * LegendreKernel((1.0, 40.0, 40.0)),
    RBFKernel(5.0) + LegendreKernel((1.0, 1.0, 1.0)),
    PolynomialKernel(4, 0.5),
    Steep(),
]


def error_of_gradient(z, kernel, precision, statistic, device='cpu'):
    """Relative, against float64 on the CPU."""
    exact, single = z.clone().requires_grad_(), z.to(device, torch.float32).requires_grad_()
    kernel_energy(exact, kernel, statistic).backward()
    kernel_energy(single, kernel, statistic, precision=precision).backward()
    return float((single.grad.cpu() - exact.grad).norm() / exact.grad.norm())


@pytest.mark.parametrize('precision, bound', [('float32', 1e-5), ('float16', 2e-3), ('bfloat16', 1.5e-2)])
@pytest.mark.parametrize('kernel', KERNELS, ids=str)
@pytest.mark.parametrize('statistic', ['V', 'U'])
def test_gradient(kernel, precision, bound, statistic, device):
    z = torch.randn(96, 512, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    assert error_of_gradient(z, kernel, precision, statistic, device) < bound


@pytest.mark.parametrize('precision, bound', [('float32', 1e-5), ('float16', 2e-3), ('bfloat16', 1.5e-2)])
@pytest.mark.parametrize('kernel', KERNELS, ids=str)
def test_value(kernel, precision, bound, device):
    """Against float64 on the CPU, in units of phi(1): with statistic 'U' a value may lie near zero."""
    z = torch.randn(96, 512, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for statistic in ('V', 'U'):
        expected = kernel_energy(z, kernel, statistic)
        found = kernel_energy(z.to(device, torch.float32), kernel, statistic, precision=precision)
        size = kernel.phi(torch.ones((), dtype=torch.float64), 512).abs() + expected.abs()
        assert abs(found.cpu() - expected) < bound * size, statistic


@pytest.mark.parametrize('precision, bound', [('float16', 5e-3), ('bfloat16', 3e-2)])
@pytest.mark.parametrize('size', [1e-12, 1e-6, 1.0, 1e6, 1e12])
def test_size_of_the_rows_does_not_matter(precision, bound, size):
    z = size * torch.randn(64, 256, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    assert error_of_gradient(z, RBFKernel(10.0), precision, 'V') < bound
