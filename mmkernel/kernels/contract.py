"""What every kernel promises, as a test class to inherit from:

    class TestMyKernel(KernelContract):
        kernel = MyKernel(c=2.0)

pytest then runs the whole suite on it; nothing here needs pytest itself.
"""

import torch

from mmkernel.kernels.energy import kernel_energy
from mmkernel.kernels.kernel import Kernel
from mmkernel.kernels.legendre import adapted_quadrature, legendre_polynomials, quadrature_coefficients
from mmkernel.kernels.nodes import mean_over_chi_square
from mmkernel.kernels.normal import mmd2_to_normal
from mmkernel.kernels.radial import RadialKernel


class KernelContract:
    """Identities that hold for K(u, v) = phi(u.v) whatever phi is."""

    kernel: Kernel
    dimensions: tuple[int, ...] = (2, 3, 16, 8192)  # where values and slopes are compared
    order: int = 6
    positive_definite: bool = True

    def test_phi_is_elementwise_and_keeps_the_type(self) -> None:
        for q in self.dimensions:
            t = torch.linspace(-1, 1, 12).view(3, 4)
            value = self.kernel.phi(t, q)
            assert value.shape == t.shape
            assert value.dtype == t.dtype
            torch.testing.assert_close(self.kernel.phi(t.T, q), value.T)

    def test_no_parameters(self) -> None:
        assert list(self.kernel.parameters()) == []

    def test_slope_against_central_differences(self) -> None:
        h = 1e-6
        t = torch.linspace(-0.99, 0.99, 67, dtype=torch.float64)
        for q in self.dimensions:
            left = (self.kernel.phi(t, q) - self.kernel.phi(t - h, q)) / h
            right = (self.kernel.phi(t + h, q) - self.kernel.phi(t, q)) / h
            smooth = torch.isclose(left, right, rtol=1e-2, atol=1e-2)  # at a kink phi' is no matter
            central = (left + right) / 2
            torch.testing.assert_close(self.kernel.dphi(t, q)[smooth], central[smooth], rtol=1e-5, atol=1e-6)

    def test_monomials_are_phi(self) -> None:
        t = torch.linspace(-1, 1, 33, dtype=torch.float64)
        for q in self.dimensions:
            monomials = self.kernel.monomials(q)
            if monomials is not None:
                powers = sum(a * t**k for k, a in enumerate(monomials))
                torch.testing.assert_close(powers, self.kernel.phi(t, q), rtol=1e-10, atol=1e-10)

    def test_coefficients_equal_quadrature(self) -> None:
        for q in self.dimensions:
            b = self.kernel.coefficients(q, self.order)
            assert b.dtype == torch.float64
            assert b.shape == (self.order + 1,)
            by_quadrature = quadrature_coefficients(lambda t, q=q: self.kernel.phi(t, q), q, self.order)
            scale = float(by_quadrature.abs().max())
            # A corner of phi at t = 1 converges slowly where the density reaches it.
            torch.testing.assert_close(b, by_quadrature, rtol=1e-6, atol=(1e-3 if q < 8 else 1e-8) * scale)

    def test_coefficients_expand_phi_in_the_mean_square(self) -> None:
        """E (phi - sum b_l P_l)^2 = E phi^2 - sum b_l^2 / N(q, l): no more is left over than higher degrees carry."""
        for q in (16, 256):
            t, w = adapted_quadrature(self.kernel.profile(q), q)
            left, polynomials = self.kernel.phi(t, q), legendre_polynomials(self.order, q, t)
            for b, p in zip(self.kernel.coefficients(q, self.order), polynomials, strict=True):
                smaller = left - b * p
                assert float((w * smaller**2).sum()) <= float((w * left**2).sum()) * (1 + 1e-9) + 1e-20
                left = smaller

    def test_positive_definiteness(self) -> None:
        for q in self.dimensions:
            assert bool(self.kernel.positive_definiteness(q, self.order)) == self.positive_definite

    def test_energy_is_symmetric_and_rotation_invariant(self) -> None:
        z = torch.randn(12, 5, dtype=torch.float64, generator=_generator(1))
        rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=_generator(2)))[0]
        for statistic in ('V', 'U'):
            energy = kernel_energy(z, self.kernel, statistic)
            torch.testing.assert_close(kernel_energy(z.flip(0), self.kernel, statistic), energy)
            torch.testing.assert_close(kernel_energy(z @ rotation, self.kernel, statistic), energy)
            torch.testing.assert_close(kernel_energy(7.0 * z, self.kernel, statistic), energy)

    def test_energy_of_uniform_points(self) -> None:
        """U: b_0 with variance 2/(n(n-1)) Var phi (the statistic is degenerate under uniformity); V adds (phi(1)-b_0)/n."""
        n = 400
        for q in (3, 32):
            z = torch.randn(n, q, dtype=torch.float64, generator=_generator(q))
            t, w = adapted_quadrature(self.kernel.profile(q), q)
            phi = self.kernel.phi(t, q)
            b0 = float(self.kernel.coefficients(q, 0)[0])
            error = (2 / (n * (n - 1)) * float((w * (phi - b0) ** 2).sum())) ** 0.5
            u = float(kernel_energy(z, self.kernel, 'U'))
            assert abs(u - b0) < 5 * error
            v = float(kernel_energy(z, self.kernel, 'V'))
            assert abs(v - (b0 + (self.kernel.value_at_one(q) - b0) / n)) < 5 * error

    def test_gradient(self) -> None:
        z = torch.randn(6, 4, dtype=torch.float64, generator=_generator(3)).requires_grad_()
        for statistic in ('V', 'U'):
            assert torch.autograd.gradcheck(lambda z, s=statistic: kernel_energy(z, self.kernel, s), (z,))

    def test_half_precision_is_computed_in_float32(self) -> None:
        z = torch.randn(16, 8, generator=_generator(4)).bfloat16()
        assert kernel_energy(z, self.kernel).dtype == torch.float32
        torch.testing.assert_close(kernel_energy(z, self.kernel), kernel_energy(z.float(), self.kernel))


class RadialContract(KernelContract):
    """What a radial kernel of R^q promises beside this: f, its slope, and its expectations against N(0, I)."""

    kernel: RadialKernel

    def test_phi_is_f_on_every_sphere(self) -> None:
        t = torch.linspace(-1, 1, 9, dtype=torch.float64)
        for q in self.dimensions:
            for radius in (1.0, q**0.5):
                expected = self.kernel.f(2 * radius**2 * (1 - t), q)
                torch.testing.assert_close(self.kernel.restrict(radius).phi(t, q), expected)

    def test_slope_in_the_squared_distance(self) -> None:
        for q in self.dimensions:
            r2, h = q * torch.linspace(0.05, 4, 40, dtype=torch.float64), 1e-6 * q
            differences = (self.kernel.f(r2 + h, q) - self.kernel.f(r2 - h, q)) / (2 * h)
            size = float(differences.abs().max())
            torch.testing.assert_close(self.kernel.df(r2, q), differences, rtol=1e-5, atol=1e-6 * size)

    def test_the_constant_is_the_mean_of_the_target(self) -> None:
        for q in self.dimensions:
            mean = mean_over_chi_square(lambda rho, q=q: self.kernel.target(rho, q), q)
            assert abs(mean - self.kernel.target_constant(q)) <= 1e-9 * max(abs(mean), 1e-3)

    def test_the_constant_is_the_mean_of_the_kernel(self) -> None:
        """||Z - Z'||^2 is twice a chi-square variable."""
        for q in self.dimensions:
            mean = mean_over_chi_square(lambda rho, q=q: self.kernel.f(2 * rho, q), q)
            assert abs(mean - self.kernel.target_constant(q)) <= 1e-8 * max(abs(mean), 1e-3)

    def test_gradient_against_the_normal_distribution(self) -> None:
        z = torch.randn(6, 4, dtype=torch.float64, generator=_generator(5)).requires_grad_()
        for statistic in ('V', 'U'):
            assert torch.autograd.gradcheck(lambda z, s=statistic: mmd2_to_normal(z, self.kernel, s), (z,))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
