"""kernel_energy: identities, the moment forms of the paper, row blocks, precision, bad input."""

import pytest
import torch
import torch.nn.functional as F

from mmkernel.kernels import LegendreKernel, RBFKernel, RieszKernel, kernel_energy, layouts, mmd2_to_uniform


def cloud(n, q, seed=0, dtype=torch.float64):
    z = torch.randn(n, q, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return z * torch.linspace(0.2, 2, q, dtype=dtype) + 0.3


def textbook(z, kernel, statistic):
    u = F.normalize(z)
    phi = kernel.phi((u @ u.T).clamp(-1, 1), z.shape[1])
    return phi.mean() if statistic == 'V' else phi[~torch.eye(len(z), dtype=torch.bool)].mean()


@pytest.mark.parametrize('statistic', ['V', 'U'])
@pytest.mark.parametrize('kernel', [LegendreKernel((1.0, 40.0, 40.0)), RBFKernel(2.5)], ids=lambda k: type(k).__name__)
@pytest.mark.parametrize('block', [1, 7, 10**6])
def test_value_and_gradient_equal_autograd_of_the_textbook_form(monkeypatch, statistic, kernel, block):
    monkeypatch.setitem(layouts.BLOCK_ENTRIES, 'cpu', block * 25)
    z = cloud(25, 6)
    ours, theirs = z.clone().requires_grad_(), z.clone().requires_grad_()
    energy, reference = kernel_energy(ours, kernel, statistic), textbook(theirs, kernel, statistic)
    torch.testing.assert_close(energy, reference, rtol=1e-12, atol=0)
    (3 * energy).backward()
    (3 * reference).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-15)


def test_moment_forms():
    """mean t = ||mean z||^2;  mean P_2 = q/(q-1) ||Z'Z/n - I/q||_F^2  (Zheng et al., ICLR 2023)."""
    z = cloud(40, 5)
    u = F.normalize(z)
    q = 5
    torch.testing.assert_close(kernel_energy(z, LegendreKernel((1.0,))), u.mean(0).square().sum())
    covariance = u.T @ u / len(u) - torch.eye(q, dtype=u.dtype) / q
    torch.testing.assert_close(
        kernel_energy(z, LegendreKernel((0.0, 1.0))), q / (q - 1) * covariance.square().sum(), rtol=1e-12, atol=0
    )


def test_mmd_of_a_collapsed_cloud_and_of_a_spread_one():
    kernel = RBFKernel(2.0)
    point = torch.ones(16, 8)
    b0 = float(kernel.coefficients(8, 0)[0])
    assert float(mmd2_to_uniform(point, kernel)) == pytest.approx(1 - b0, rel=1e-5)
    cross = torch.cat([torch.eye(8), -torch.eye(8)])
    assert 0 <= float(mmd2_to_uniform(cross, kernel)) < float(mmd2_to_uniform(cloud(16, 8).float(), kernel)) < 1 - b0


def test_float32_is_close_to_float64():
    kernel = LegendreKernel((1.0, 40.0, 40.0))
    z = cloud(300, 64)
    exact = z.clone().requires_grad_()
    single = z.float().requires_grad_()
    value, rounded = kernel_energy(exact, kernel), kernel_energy(single, kernel)
    value.backward()
    rounded.backward()
    assert rounded.item() == pytest.approx(value.item(), rel=1e-5)
    assert float((single.grad - exact.grad).norm() / exact.grad.norm()) < 1e-5


def test_autocast_does_not_reach_the_gram_matrix():
    """In bfloat16 t^3 against 3t/q would be noise at large q."""
    kernel = LegendreKernel((0.0, 0.0, 1.0))
    z = cloud(64, 512, dtype=torch.float32)
    expected = kernel_energy(z, kernel)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(kernel_energy(z, kernel), expected)


def test_no_grad_makes_no_gradient():
    with torch.no_grad():
        assert not kernel_energy(cloud(8, 4).requires_grad_(), RBFKernel()).requires_grad


def test_duplicates_under_an_infinite_slope_stay_finite():
    z = cloud(6, 4).repeat(2, 1).requires_grad_()
    kernel_energy(z, RieszKernel(1.0)).backward()
    assert torch.isfinite(z.grad).all()


def test_second_derivatives_are_refused():
    z = cloud(8, 4).requires_grad_()
    with pytest.raises(RuntimeError, match='no second derivative'):
        torch.autograd.grad(kernel_energy(z, RBFKernel()), z, create_graph=True)


@pytest.mark.parametrize(
    'shape, message',
    [((1, 8), 'batch of 1 image'), ((4, 1), 'q >= 2'), ((4, 2, 8), r'shape \(B, q\)'), ((0, 8), 'batch of 0')],
)
def test_wrong_shapes(shape, message):
    with pytest.raises(ValueError, match=message):
        kernel_energy(torch.ones(shape), RBFKernel())


@pytest.mark.parametrize('kernel', [RBFKernel(), LegendreKernel((1.0,)), LegendreKernel((1.0, 40.0, 40.0))], ids=str)
def test_nan_rows_make_nan(kernel):
    z = cloud(5, 3)
    z[2, 1] = float('nan')
    z.requires_grad_()
    energy = kernel_energy(z, kernel)
    energy.backward()
    assert energy.isnan()
    assert z.grad.isnan().any()


def test_unknown_statistic():
    with pytest.raises(ValueError, match="'V'"):
        kernel_energy(torch.eye(3), RBFKernel(), statistic='W')


def test_infinite_diagonal_needs_the_u_statistic():
    from mmkernel.kernels import Kernel

    class Logarithmic(Kernel):
        """phi(t) = -log ||u-v||."""

        def phi(self, t, q):
            return -0.5 * (2 - 2 * t).log()

    with pytest.raises(ValueError, match="Use statistic='U'"):
        kernel_energy(torch.eye(3), Logarithmic())
    assert torch.isfinite(kernel_energy(torch.eye(3), Logarithmic(), 'U'))
