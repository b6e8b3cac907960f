"""Entropy by neighbours: the authors' figure, the formula, blocks, limits, rows that repeat, several processes."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from multiprocess import run_processes

from mmkernel.kernels import HeatKernel, Kernel, LegendreKernel, RBFKernel, layouts
from mmkernel.losses import leave_one_out_log_density, nearest_neighbour_log_density
from mmkernel.models import Embeddings, EntropyHead

DTYPES = {torch.float64: 1e-9, torch.float32: 1e-5}


class Inverse(Kernel):
    """phi(t) = r^-s, r^2 = 2 - 2t."""

    def __init__(self, s: float) -> None:
        super().__init__()
        self.s = s

    def phi(self, t, q):
        return (2 - 2 * t).pow(-self.s / 2)


def cloud(n=20, q=5, V=2, seed=0, dtype=torch.float64):
    return torch.randn(V, n, q, dtype=dtype, generator=torch.Generator().manual_seed(seed)) + 0.2


def textbook(z, kernel):
    u = F.normalize(z, dim=-1)
    values = kernel.phi(u @ u.mT, z.shape[-1]).masked_fill(torch.eye(z.shape[1], dtype=torch.bool), 0)
    return (values.sum(-1) / (z.shape[1] - 1)).log().mean(-1)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_nearest_neighbours(golden, dtype, device):
    g = golden('koleo_n24_q6')
    x = torch.from_numpy(g['in_x']).to(device, dtype).requires_grad_()
    loss = nearest_neighbour_log_density(x[None], float(g['hp_eps'])).squeeze()
    loss.backward()
    assert loss.item() == pytest.approx(float(g['out_loss']), rel=DTYPES[dtype])
    expected = g['grad_x']
    assert np.abs(x.grad.cpu().numpy() - expected).max() <= 10 * DTYPES[dtype] * np.abs(expected).max()


@pytest.mark.parametrize('budget', [60, 10**6])
def test_kernel_densities(monkeypatch, budget):
    monkeypatch.setitem(layouts.BLOCK_ENTRIES, 'cpu', budget)
    kernel = RBFKernel(1.7)
    z, same = cloud().requires_grad_(), cloud().requires_grad_()
    ours, theirs = leave_one_out_log_density(z, kernel), textbook(same, kernel)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    weights = torch.tensor([1.0, 3.0]).double()
    (gradient,) = torch.autograd.grad((weights * ours).sum(), z)
    (expected,) = torch.autograd.grad((weights * theirs).sum(), same)
    torch.testing.assert_close(gradient, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize('budget', [60, 10**6])
def test_blocks_find_the_same_neighbours(monkeypatch, budget):
    z = cloud().requires_grad_()
    u = F.normalize(z, dim=-1)
    distances = (u[:, :, None] - u[:, None] + 1e-8).norm(dim=-1) + 1e-8
    nearest = distances.masked_fill(torch.eye(20, dtype=torch.bool), torch.inf).amin(-1)
    monkeypatch.setitem(layouts.BLOCK_ENTRIES, 'cpu', budget)
    ours = nearest_neighbour_log_density(z)
    torch.testing.assert_close(ours, -nearest.log().mean(-1), rtol=1e-7, atol=1e-9)


def test_nearest_neighbours_are_the_limit_of_steep_kernels():
    z = cloud(60, 4)
    hard, gaps = nearest_neighbour_log_density(z), []
    for s in (2.0, 8.0, 32.0):
        sums = leave_one_out_log_density(z, Inverse(s)) + math.log(59)
        gaps.append(float((sums / s - hard).abs().max()))
    assert gaps[0] > 4 * gaps[1] > 16 * gaps[2]
    assert gaps[2] < 0.02


def test_uniform_points_have_the_divergence_of_chance():
    """log E phi is b_0 for uniform points, the least there is: a Kullback-Leibler divergence is not negative."""
    kernel, z = RBFKernel(2.0), cloud(2000, 6, 1) - 0.2
    constant = math.log(kernel.known_constant(6))
    assert leave_one_out_log_density(z, kernel).item() == pytest.approx(constant, abs=2e-3)
    assert leave_one_out_log_density(z.abs(), kernel).item() > constant + 0.1


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('kernel', [None, RBFKernel(2.0), RBFKernel(500.0)], ids=str)
@pytest.mark.parametrize('kind', ['zero', 'point', 'twins', 'opposite'])
def test_rows_that_repeat(kernel, kind, dtype):
    z = cloud(dtype=dtype)
    z = dict(zero=torch.zeros_like(z), point=torch.ones_like(z), twins=z.repeat(1, 2, 1), opposite=z[:, :2])[kind]
    if kind == 'opposite':
        z = torch.stack([z[:, 0], -z[:, 0]], 1)
    z = z.clone().requires_grad_()
    loss = EntropyHead(kernel, alignment_weight=0.0)(*z)
    loss.backward()
    assert loss.isfinite()
    assert z.grad.isfinite().all()
    if kind in ('zero', 'point'):
        assert loss > EntropyHead(kernel, alignment_weight=0.0)(*cloud(dtype=dtype))


def job(rank, world_size):
    found = {}
    functions = dict(
        nearest=nearest_neighbour_log_density,
        rows=lambda z: leave_one_out_log_density(z, RBFKernel(2.0), layout='rows'),
        columns=lambda z: leave_one_out_log_density(z, RBFKernel(2.0), layout='columns'),
    )
    for name, function in functions.items():
        z = cloud(16).chunk(world_size, 1)[rank].requires_grad_()
        value = function(z)
        found[name], found[name + ' gradient'] = value.detach(), torch.autograd.grad(value.sum(), z)[0]
    return found


@pytest.mark.parametrize('world_size', [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_equal_one(world_size):
    expected = job(0, 1)
    for rank, found in enumerate(run_processes(job, world_size)):
        for name, value in expected.items():
            if name.endswith('gradient'):
                value = value.chunk(world_size, 1)[rank] * world_size
            assert float((found[name] - value).abs().max()) <= 1e-12 * float(value.abs().max()), name


def test_bad_input():
    for function in (nearest_neighbour_log_density, lambda z: leave_one_out_log_density(z, RBFKernel())):
        with pytest.raises(ValueError, match='batch of 1 image has no neighbours'):
            function(cloud(1))
        with pytest.raises(ValueError, match=r'shape \(V, B, q\), got'):
            function(cloud()[0])
    with pytest.raises(ValueError, match='needs a kernel with phi >= 0'):
        leave_one_out_log_density(cloud(), LegendreKernel((1.0, 1.0)))
    with pytest.raises(ValueError, match='q >= 2|at least 2'):
        leave_one_out_log_density(cloud(q=1), RBFKernel())
    with pytest.raises(ValueError, match='EntropyHead.eps=0'):
        EntropyHead(eps=0.0)
    with pytest.raises(ValueError, match='go with a kernel'):
        EntropyHead(layout='columns')
    with pytest.raises(ValueError, match='EntropyHead.align'):
        EntropyHead(align='targets')
    with pytest.raises(RuntimeError, match='no second derivative'):
        torch.autograd.grad(
            leave_one_out_log_density(z := cloud().requires_grad_(), RBFKernel()).sum(), z, create_graph=True
        )


def test_alignment_on_the_sphere_to_the_mean():
    z = cloud(V=3)
    u = F.normalize(z, dim=-1)
    heads = {a: EntropyHead(align=a, reduction='element') for a in ('pairs', 'mean')}
    parts = {a: head.loss(Embeddings.from_views(*z))['alignment'] for a, head in heads.items()}
    torch.testing.assert_close(parts['mean'], (u - u.mean(0)).square().mean())
    torch.testing.assert_close(parts['pairs'], 3 * parts['mean'])  # of all views: twice the variance, its divisor V - 1


def test_a_kernel_below_zero_by_rounding_is_a_density():
    """The heat kernel is positive; far from t = 1 its series leaves the rounding of terms that cancel."""
    value = leave_one_out_log_density(cloud(), HeatKernel(0.01))
    assert HeatKernel(0.01).minimum(5) < 0
    assert value.isfinite().all()


def test_equal_rows_in_float32():
    """Two equal rows push each other by 1e7, which cancels: what is left is the push of the others."""
    z = cloud(V=1).float()
    z[:, 1:10:2] = z[:, 0:10:2]
    found = []
    for x in (z.clone().requires_grad_(), z.double().requires_grad_()):
        found.append(torch.autograd.grad(nearest_neighbour_log_density(x).sum(), x)[0].double())
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)
