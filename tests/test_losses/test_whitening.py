"""Whitening matrices against independent computations, the official layer, and gradients at repeated eigenvalues."""

import numpy as np
import pytest
import torch
from launches import Launches

from mmkernel.losses.matrices import eigenvectors, inverse_square_root, inverse_square_root_newton
from mmkernel.losses.whitening import (
    METHODS,
    draw_sub_batches,
    sub_batches,
    whiten,
    whiten_views,
    whitened_distance,
    whitening_matrix,
)

GOLDEN = dict(cholesky='cholesky_cov', cholesky_precision='cholesky_prec')
every_method = pytest.mark.parametrize('method', METHODS)


def rows(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@every_method
def test_matrices_and_whitened_rows(golden, method):
    g = golden('whitening_matrices_64x6')
    name = GOLDEN.get(method, method)
    W = whitening_matrix(torch.from_numpy(g['out_cov']), method)
    np.testing.assert_allclose(W, g[f'out_W_{name}'], rtol=1e-9, atol=1e-10)
    whitened = whiten(torch.from_numpy(g['in_X']), method)
    np.testing.assert_allclose(whitened.rows, g[f'out_Z_{name}'], rtol=1e-9, atol=1e-10)
    assert whitened.jitter == 0
    values = g['out_eigval_cov']
    assert whitened.condition.item() == pytest.approx(values.max() / values.min(), rel=1e-9)


def test_official_layer(golden):
    g = golden('whitening2d_eps0')
    x = torch.from_numpy(g['in_x']).requires_grad_()
    z = whiten(x, 'cholesky', shrinkage=float(g['hp_eps'])).rows
    np.testing.assert_allclose(z.detach(), g['out_z'], rtol=1e-9, atol=1e-11)
    (z * torch.from_numpy(g['in_cotangent'])).sum().backward()
    expected = g['grad_x_of_sum_cotangent_times_z']
    assert np.abs(x.grad.numpy() - expected).max() <= 1e-8 * np.abs(expected).max()


@every_method
def test_rows_are_white_in_every_block(method):
    x = rows(3, 2, 20, 5) @ rows(5, 5, seed=1) + 4
    z = whiten(x, method).rows
    identity = torch.eye(5, dtype=torch.float64).expand(3, 2, 5, 5)
    torch.testing.assert_close(z.mT @ z / 19, identity, rtol=0, atol=1e-10)
    torch.testing.assert_close(z[1, 0], whiten(x[1, 0], method).rows)


def test_shrinkage_mixes_in_the_identity():
    x = rows(20, 5)
    S = 0.7 * torch.cov(x.T) + 0.3 * torch.eye(5, dtype=torch.float64)
    expected = (x - x.mean(0)) @ whitening_matrix(S, 'zca').T
    torch.testing.assert_close(whiten(x, 'zca', shrinkage=0.3).rows, expected)


@every_method
def test_gradient(method):
    x = (rows(12, 4) @ rows(4, 4, seed=1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: whiten(x, method, shrinkage=0.1).rows, x)


def with_eigenvalues(values):
    """A rotation of diag(values), where no two coordinates are special."""
    U = torch.linalg.qr(rows(len(values), len(values))).Q
    return U @ torch.tensor(values, dtype=torch.float64).diag() @ U.T


@pytest.mark.parametrize('values', [(1.0, 1.0, 1.0, 1.0), (3.0, 3.0, 0.5, 0.5), (1.0, 1.0 + 1e-10, 1.0 + 1e-7, 2.0)])
def test_inverse_square_root_is_smooth_where_eigenvalues_meet(values):
    """torch's own eigh divides by the gaps there; the divided differences do not."""
    S = with_eigenvalues(values).requires_grad_()
    assert torch.autograd.gradcheck(lambda S: inverse_square_root((S + S.T) / 2), S, eps=1e-6, atol=1e-6)
    torch.testing.assert_close(inverse_square_root(S) @ S @ inverse_square_root(S), torch.eye(4, dtype=torch.float64))


def test_eigenvectors_have_fixed_signs_and_descending_values():
    S = with_eigenvalues((1.0, 4.0, 2.0, 3.0))
    U = eigenvectors(S)
    torch.testing.assert_close(U.T @ S @ U, torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0], dtype=torch.float64)))
    assert (U.diagonal() > 0).all()


def test_eigenvectors_have_finite_gradients_where_eigenvalues_meet():
    S = with_eigenvalues((2.0, 2.0, 1.0, 1.0)).requires_grad_()
    eigenvectors(S)[0].sum().backward()
    assert torch.isfinite(S.grad).all()


def test_newton_schulz_approaches_the_root():
    S = with_eigenvalues((3.0, 2.0, 1.0, 0.5))
    errors = [float((inverse_square_root_newton(S, n) - inverse_square_root(S)).abs().max()) for n in (1, 5, 12)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-6
    with pytest.raises(ValueError, match='iterations >= 1'):
        inverse_square_root_newton(S, 0)


@every_method
def test_collapsed_dimensions_get_jitter(method):
    x = rows(20, 5).float()
    x[:, 4] = x[:, 3]
    x.requires_grad_()
    whitened = whiten(x, method)
    assert 0 < whitened.jitter <= 1e-2
    whitened.rows.square().mean().backward()
    assert torch.isfinite(whitened.rows).all()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize('rank', [1, 7, 31])
@pytest.mark.parametrize('shift', [0.0, 100.0])
def test_any_rank_can_be_whitened(rank, shift):
    x = (rows(80, rank) @ rows(rank, 32, seed=1)).float() + shift
    whitened = whiten(x)
    assert 0 < whitened.jitter
    assert whitened.pivots > 1e5
    assert torch.isfinite(whitened.rows).all()
    assert whitened.rows.var() < 2


def test_jitter_only_where_it_is_needed():
    x = rows(2, 20, 5)
    expected = whiten(x[0]).rows
    x[1, :, 4] = x[1, :, 3]
    whitened = whiten(x)
    torch.testing.assert_close(whitened.rows[0], expected, rtol=0, atol=0)
    assert whitened.jitter > 0


@pytest.mark.parametrize('bad', [torch.nan, torch.inf, -torch.inf])
@every_method
def test_what_is_not_finite_comes_out_as_nan_without_an_error(method, bad):
    x = rows(2, 20, 5)
    expected = whiten(x, method).rows[0]
    x[1, 3, 2] = bad
    whitened = whiten(x.requires_grad_(), method)
    torch.testing.assert_close(whitened.rows[0], expected, rtol=0, atol=0)
    # the triangular solves whiten dimensions before the bad one; no row is left that looks sound
    assert whitened.rows[1].isnan().any(-1).all()
    whitened.rows.sum().backward()
    assert x.grad[0].isfinite().all()


@pytest.mark.parametrize('bad', [torch.nan, torch.inf])
@pytest.mark.parametrize(
    'function', [*(lambda S, m=m: whitening_matrix(S, m) for m in METHODS), inverse_square_root, eigenvectors]
)
def test_matrices_that_are_not_finite(function, bad):
    S = torch.stack([with_eigenvalues((3.0, 2.0, 1.0)), with_eigenvalues((3.0, 2.0, 1.0))])
    expected = function(S)[0]
    S[1, 2, 0] = S[1, 0, 2] = bad
    W = function(S)
    torch.testing.assert_close(W[0], expected, rtol=0, atol=0)
    assert W[1].isnan().any()


@pytest.mark.parametrize('point', [0.0, 0.1, 1000.0])
@every_method
def test_one_point_is_whitened_to_zero(method, point):
    x = torch.full((20, 5), point).requires_grad_()
    whitened = whiten(x, method)
    assert not whitened.rows.any()
    whitened.rows.sum().backward()
    assert not x.grad.any()


@every_method
def test_nothing_waits_for_the_device(method):
    x = rows(2, 20, 5).requires_grad_()
    with Launches() as launches:
        whiten(x, method, shrinkage=0.1).rows.sum().backward()
    assert launches.host_reads == 0


def test_sub_batches_keep_views_together():
    x = rows(2, 12, 3)
    permutation = draw_sub_batches(12, 4, 2, torch.Generator().manual_seed(0))
    assert permutation.shape == (2, 3, 4)
    assert torch.equal(permutation[1].flatten().sort().values, torch.arange(12))
    blocks = sub_batches(x, permutation)
    assert blocks.shape == (2, 2, 3, 4, 3)
    for view in range(2):
        torch.testing.assert_close(blocks[1, view, 2], x[view, permutation[1, 2]])


def test_joint_statistics_whiten_the_union_of_the_views():
    x = rows(1, 2, 3, 12, 4)  # I, V, K, s, q
    z = whiten_views(x, statistics='joint').rows
    union = whiten(torch.cat([x[0, 0, 1], x[0, 1, 1]])).rows
    torch.testing.assert_close(torch.cat([z[0, 0, 1], z[0, 1, 1]]), union)
    torch.testing.assert_close(whiten_views(x, statistics='view').rows[0, 1, 2], whiten(x[0, 1, 2]).rows)


def test_bad_input():
    with pytest.raises(ValueError, match='Whitening 8 dimensions needs more samples than that, got 8'):
        whiten(rows(8, 8))
    assert torch.isfinite(whiten(rows(8, 8), shrinkage=0.1).rows).all()
    with pytest.raises(ValueError, match="got 'qr'"):
        whiten(rows(20, 3), 'qr')
    with pytest.raises(ValueError, match='shrinkage mixes'):
        whiten(rows(20, 3), shrinkage=2.0)
    with pytest.raises(ValueError, match="statistics is 'view'"):
        whiten_views(rows(1, 2, 1, 20, 3), statistics='all')
    with pytest.raises(ValueError, match="distance is 'cosine' or 'squared', got 'cosinus'"):
        whitened_distance(rows(1, 2, 1, 8, 3), rows(1, 2, 1, 8, 3), distance='cosinus')
    with pytest.raises(ValueError, match='cannot be cut into whitening sub-batches of 5'):
        draw_sub_batches(12, 5, 1, torch.Generator())


def test_condition_is_that_of_the_worst_covariance():
    x = rows(2, 3, 40, 5)
    x[1, 1] @= torch.diag(torch.tensor([1.0, 1.0, 30.0, 1.0, 1.0], dtype=torch.float64))
    values = torch.linalg.eigvalsh(torch.cov(x[1, 1].T))
    assert whiten(x).condition.item() == pytest.approx(float(values[-1] / values[0]), rel=1e-9)


def test_triangular_backward_equals_that_of_the_factorisation():
    x, cotangent = rows(3, 12, 4), rows(3, 12, 4, seed=1)
    ours, plain = x.clone().requires_grad_(), x.clone().requires_grad_()
    (whiten(ours, shrinkage=0.2).rows * cotangent).sum().backward()
    S = 0.8 * torch.stack([torch.cov(block.T) for block in plain]) + 0.2 * torch.eye(4, dtype=torch.float64)
    W = whitening_matrix(S, 'cholesky')
    ((plain - plain.mean(1, keepdim=True)) @ W.mT * cotangent).sum().backward()
    torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-11, atol=1e-12)
