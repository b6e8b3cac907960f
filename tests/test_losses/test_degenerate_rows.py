"""Rows without a direction, NaN rows: an objective scores a collapsed cloud as the worst there is, and hides nothing."""

import pytest
import torch

from mmkernel.kernels import LaplaceKernel, LegendreKernel, PolynomialKernel, RBFKernel, RieszKernel, kernel_energy
from mmkernel.losses import nt_xent
from mmkernel.models import (
    CrossCorrelationHead,
    Embeddings,
    InfoNCEHead,
    KernelMMDHead,
    VarianceCovarianceHead,
    WhiteningHead,
)

N, Q = 32, 16
KERNELS = [
    LegendreKernel((1.0,)),
    LegendreKernel((1.0, 40.0)),
    LegendreKernel((1.0, 40.0, 40.0)),
    RBFKernel(2.0),
    LaplaceKernel(),
    RieszKernel(),
    PolynomialKernel(3, 1.0),
]


def cloud(kind, dtype=torch.float64, shape=(N, Q)):
    z = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    return {'uniform': z, 'zero': torch.zeros_like(z), 'point': torch.ones_like(z)}[kind]


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('statistic', ['V', 'U'])
@pytest.mark.parametrize('kernel', KERNELS, ids=str)
def test_zeros_are_one_point(kernel, statistic, dtype):
    zero, point, uniform = (
        kernel_energy(cloud(kind, dtype), kernel, statistic) for kind in ('zero', 'point', 'uniform')
    )
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(zero, point, rtol=tolerance, atol=0)
    assert zero.item() == pytest.approx(kernel.value_at_one(Q), rel=tolerance)
    assert uniform < 0.95 * zero


@pytest.mark.parametrize('temperature', [0.05, 0.2, 1.0])
def test_zeros_are_one_point_among_logits(temperature):
    zero, point, uniform = (nt_xent(cloud(kind, shape=(2, N, Q)), temperature) for kind in ('zero', 'point', 'uniform'))
    torch.testing.assert_close(zero, torch.tensor(2 * N - 1.0, dtype=torch.float64).log())
    torch.testing.assert_close(zero, point)
    assert zero >= 0
    aligned = cloud('uniform').expand(2, -1, -1)
    assert nt_xent(aligned, temperature) < zero


def test_some_rows_without_a_direction_have_no_gradient_and_disturb_no_other():
    z = cloud('uniform')
    z[:3] = 0
    z.requires_grad_()
    axis = torch.zeros(3, Q, dtype=z.dtype)
    axis[:, 0] = 1
    same = torch.cat([axis, z.detach()[3:]]).requires_grad_()
    for kernel in KERNELS:
        energies = [kernel_energy(x, kernel, 'U') for x in (z, same)]
        torch.testing.assert_close(*energies)
        gradient, expected = (torch.autograd.grad(e, x)[0] for e, x in zip(energies, (z, same), strict=True))
        assert not gradient[:3].any()
        torch.testing.assert_close(gradient[3:], expected[3:])


def test_pairs_of_which_one_row_has_no_direction():
    head = KernelMMDHead(LegendreKernel((1.0, 40.0, 40.0)), alignment_weight=100.0)
    x, y = cloud('uniform'), cloud('uniform').flip(0)
    x[:3] = 0
    named = x.clone()
    named[:3, 0] = 1
    results = []
    for first in (x, named):
        views = [first.clone().requires_grad_(), y.clone().requires_grad_()]
        parts = head.loss(Embeddings.from_views(*views))
        loss = parts['loss_alignment'] + parts['loss_kernel']
        results.append([loss, *torch.autograd.grad(loss, views)])
    torch.testing.assert_close(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][2], results[1][2])
    torch.testing.assert_close(results[0][1][3:], results[1][1][3:])


@pytest.mark.parametrize(
    'head',
    [
        KernelMMDHead(LegendreKernel((1.0, 40.0, 40.0))),
        KernelMMDHead(LegendreKernel((1.0,))),
        KernelMMDHead(RBFKernel(), statistic='U', log=True),
        VarianceCovarianceHead(),
        CrossCorrelationHead(),
        InfoNCEHead(),
        InfoNCEHead(negatives='targets'),
        WhiteningHead(shrinkage=0.1),
    ],
    ids=lambda head: type(head).__name__,
)
@pytest.mark.parametrize('precision', ['float32', 'float16'])
@pytest.mark.parametrize('bad', [float('nan'), float('inf'), 1e30])
def test_what_is_not_finite_is_seen(head, precision, bad):
    """A loss that is not finite, for the training loop to explain; nothing is raised."""
    if hasattr(head, 'engine') and getattr(head, 'negatives', 'views') == 'views':
        head.engine = type(head.engine)(precision)
    x, y = cloud('uniform', torch.float32), cloud('uniform', torch.float32).flip(0)
    x[3, 2] = bad
    parts = head.loss(Embeddings.from_views(x, y))
    total = sum(value for name, value in parts.items() if name.startswith('loss_'))
    assert not total.isfinite()
