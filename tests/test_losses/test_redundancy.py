"""Variance, covariance and cross-correlation terms: definitions, equalities, bad input."""

import pytest
import torch

from mmkernel.losses.redundancy import (
    covariance,
    covariance_penalty,
    cross_correlation,
    cross_correlation_terms,
    standardize,
    variance_hinge,
)


def rows(n=20, q=6, seed=0):
    z = torch.randn(n, q, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return z @ torch.randn(q, q, dtype=torch.float64, generator=torch.Generator().manual_seed(9)) + 3


def test_hinge_by_hand():
    Z = torch.tensor([[0.0, 0.0], [0.2, 6.0]], dtype=torch.float64)  # variances 0.02 and 18
    assert variance_hinge(Z, target_std=1.0, eps=1e-4).item() == pytest.approx((1 - 0.0201**0.5) / 2)


def test_covariance_is_that_of_torch():
    Z = rows()
    torch.testing.assert_close(covariance(Z), torch.cov(Z.T))


def test_covariance_penalty_from_either_side_of_the_gram_matrix():
    """||C||_F^2 = ||H Z Z' H||_F^2 / (N - 1)^2: the q x q and the N x N matrix say the same."""
    Z = rows()
    N, q = Z.shape
    centred = Z - Z.mean(0)
    gram = (centred @ centred.T).square().sum() / (N - 1) ** 2
    expected = (gram - Z.var(0).square().sum()) / q
    torch.testing.assert_close(covariance_penalty(Z), expected)


def test_cross_correlation_energy_from_either_side_of_the_gram_matrix():
    """||x'y||_F^2 = <xx', yy'>."""
    X, Y = rows(seed=1), rows(seed=2)
    x, y = standardize(X), standardize(Y)
    expected = ((x @ x.T) * (y @ y.T)).sum() / X.shape[0] ** 2
    on, off = cross_correlation_terms(X, Y)
    diagonal = cross_correlation(X, Y).diagonal()
    torch.testing.assert_close(off, expected - diagonal.square().sum())
    torch.testing.assert_close(on, (diagonal - 1).square().sum())


def test_cross_correlation_is_bounded_and_that_of_a_view_with_itself_is_a_correlation():
    X = rows()
    C = cross_correlation(X, X, eps=0.0)
    torch.testing.assert_close(C, torch.corrcoef(X.T))
    assert cross_correlation(X, rows(seed=3)).abs().max() <= 1


def test_standardize_is_batch_norm():
    X = rows()
    torch.testing.assert_close(standardize(X), torch.nn.functional.batch_norm(X, None, None, training=True))


def test_small_off_diagonal_entries_survive_single_precision():
    """A large trace must not drown them: sum C^2 - sum C_ii^2 in float32 would."""
    Z = torch.randn(4096, 64, generator=torch.Generator().manual_seed(0))
    Z[:, 0] *= 1e3
    exact = covariance_penalty(Z.double())
    assert covariance_penalty(Z).item() == pytest.approx(exact.item(), rel=1e-4)


@pytest.mark.parametrize('function', [variance_hinge, covariance_penalty, standardize])
def test_bad_input(function):
    with pytest.raises(ValueError, match='batch of 1 image has no variance'):
        function(torch.randn(1, 4))
    with pytest.raises(ValueError, match='One view at a time'):
        function(torch.randn(2, 3, 4))
