"""Alignment and uniformity against the authors' two functions, and their identity with the kernel engine."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmkernel.kernels import RBFKernel, kernel_energy
from mmkernel.losses import alignment, squared_distance, uniformity
from mmkernel.losses.alignment import paired_distance


def test_golden(golden):
    g = golden('alignuniform_a2_t2')
    x, y = (torch.from_numpy(g[f'in_{name}']).requires_grad_() for name in 'xy')
    value = alignment(x, y, exponent=float(g['hp_alpha']))
    assert value.item() == pytest.approx(float(g['out_align']), rel=1e-9)
    for z, gradient in zip((x, y), torch.autograd.grad(value, (x, y)), strict=True):
        name = 'x' if z is x else 'y'
        np.testing.assert_allclose(gradient, g[f'grad_align_{name}'], rtol=1e-8, atol=1e-12)
        value = uniformity(z, scale=float(g['hp_t']))
        assert value.item() == pytest.approx(float(g[f'out_uniform_{name}']), rel=1e-9)
        (gradient,) = torch.autograd.grad(value, z)
        np.testing.assert_allclose(gradient, g[f'grad_uniform_{name}'], rtol=1e-8, atol=1e-12)


def test_uniformity_is_the_log_of_the_rbf_energy():
    z = torch.randn(20, 5, dtype=torch.float64, requires_grad=True)
    ours = kernel_energy(z, RBFKernel(scale=2.0), 'U').log()
    theirs = uniformity(z, 2.0, normalize=True)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(value, z)[0] for value in (ours, theirs)))


def test_normalize():
    x, y = torch.randn(6, 4), torch.randn(6, 4)
    torch.testing.assert_close(alignment(x, y, normalize=True), alignment(F.normalize(x), F.normalize(y)))


def test_reductions():
    x, y = torch.randn(6, 4), torch.randn(6, 4)
    torch.testing.assert_close(squared_distance(x, y, 'sample'), (x - y).square().sum(1).mean())
    torch.testing.assert_close(squared_distance(x, y, 'element'), (x - y).square().mean())
    with pytest.raises(ValueError, match="'sample'"):
        squared_distance(x, y, 'sum')


def test_one_row_has_no_pairs():
    with pytest.raises(ValueError, match='at least 2 rows'):
        uniformity(torch.ones(1, 3))


def test_squared_distance_of_unit_rows_is_two_minus_twice_the_cosine(golden):
    g = golden('htdt_norm_mse')
    x, y = (torch.from_numpy(g[f'in_{name}']).requires_grad_() for name in 'xy')
    value = squared_distance(F.normalize(x), F.normalize(y), 'sample')
    assert value.item() == pytest.approx(float(g['out_loss']), rel=1e-9)
    for gradient, name in zip(torch.autograd.grad(value, (x, y)), 'xy', strict=True):
        np.testing.assert_allclose(gradient, g[f'grad_{name}'], rtol=1e-8, atol=1e-12)


def leaf(shape, seed):
    z = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (3 * z + 0.3).requires_grad_()


def test_distance_to_other_targets():
    close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-14)
    p, t = leaf((3, 8, 5), 0), leaf((2, 8, 5), 1)
    x, y = leaf((3, 8, 5), 0), leaf((2, 8, 5), 1)
    pairs = [(0, 1), (1, 0), (2, 0)]
    u, v = F.normalize(x, dim=-1), F.normalize(y, dim=-1)
    reference = torch.stack([(u[i] - v[j]).square().sum(-1).mean() for i, j in pairs]).mean()
    reference.backward()
    distance = paired_distance(p, t, pairs)
    close(distance, reference)
    (2 * distance).backward(retain_graph=True)
    close(p.grad, 2 * x.grad)
    close(t.grad, 2 * y.grad)
    constant = paired_distance(p, t.detach(), pairs)
    close(torch.autograd.grad(constant, p)[0], x.grad)
    with pytest.raises(ValueError, match='No pair of views'):
        paired_distance(p, t, [])
