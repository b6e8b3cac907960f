"""P_l(q; t), N(q, l), quadrature: against the authors' closed forms, scipy, and the identities of the sphere."""

import numpy as np
import pytest
import torch
from scipy.special import eval_chebyt

from mmkernel.kernels import (
    gauss_gegenbauer,
    legendre_derivative,
    legendre_polynomial,
    legendre_polynomials,
    num_harmonics,
    quadrature_coefficients,
)
from mmkernel.kernels.legendre import monomial_coefficients

GRID = torch.linspace(-1, 1, 101, dtype=torch.float64)


@pytest.mark.parametrize('case', ['legendre_dim3', 'legendre_dim128'])
def test_values_and_slopes_equal_the_authors_closed_forms(golden, case):
    g = golden(case)
    t = torch.from_numpy(g['in_t'])
    q = int(g['hp_q'])
    for row, degree in enumerate(g['hp_degrees'].tolist()):
        np.testing.assert_allclose(legendre_polynomial(degree, q, t), g['out_P'][row], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(legendre_derivative(degree, q, t), g['out_dP_dt'][row], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('case', ['gegenbauer_q3', 'gegenbauer_q16'])
def test_values_equal_scipy_and_40_digit_recursion(golden, case):
    g = golden(case)
    t, q = torch.from_numpy(g['in_t']), int(g['hp_q'])
    for row, degree in enumerate(g['hp_degrees'].tolist()):
        np.testing.assert_allclose(legendre_polynomial(degree, q, t), g['out_P_mpmath'][row], rtol=1e-9, atol=1e-13)
        assert num_harmonics(q, degree) == g['out_dim_harmonics'][row]


def test_dimension_two_is_chebyshev():
    for degree in range(7):
        np.testing.assert_allclose(legendre_polynomial(degree, 2, GRID), eval_chebyt(degree, GRID.numpy()), atol=1e-12)
        assert num_harmonics(2, degree) == (1 if degree == 0 else 2)


@pytest.mark.parametrize('q', [2, 3, 5, 64, 8192, 32768, 65536])
@pytest.mark.parametrize('degree', [0, 1, 2, 3, 4, 9])
def test_ends_bound_parity_and_slope(q, degree):
    value = legendre_polynomial(degree, q, GRID)
    assert value[-1] == pytest.approx(1, abs=1e-12)
    assert value.abs().max() <= 1 + 1e-12
    torch.testing.assert_close(value.flip(0), (-1) ** degree * value, rtol=0, atol=1e-12)
    h = 1e-6
    inner = GRID[1:-1]
    central = (legendre_polynomial(degree, q, inner + h) - legendre_polynomial(degree, q, inner - h)) / (2 * h)
    torch.testing.assert_close(legendre_derivative(degree, q, inner), central, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('q', [2, 3, 8, 128, 65536])
def test_orthogonal_under_the_law_of_the_inner_product(q):
    t, w = gauss_gegenbauer(q, 64)
    assert float(w.sum()) == pytest.approx(1, abs=1e-12)
    polynomials = legendre_polynomials(4, q, t)
    for l, p in enumerate(polynomials):
        assert float((w * p * p).sum()) * num_harmonics(q, l) == pytest.approx(1, rel=1e-9)
        for k in range(l):
            scale = (num_harmonics(q, l) * num_harmonics(q, k)) ** 0.5
            assert abs(float((w * p * polynomials[k]).sum()) * scale) < 1e-9


@pytest.mark.parametrize('q', [2, 7, 4096])
def test_monomials_evaluate_to_the_recurrence(q):
    rows = monomial_coefficients(4, q)
    for l, p in enumerate(legendre_polynomials(4, q, GRID)):
        torch.testing.assert_close(sum(a * GRID**k for k, a in enumerate(rows[l])), p, rtol=0, atol=1e-12)


def test_expansion_sums_back_to_the_profile():
    def phi(t):
        return torch.exp(1.3 * t) + 0.2 * t**3

    for q in (2, 3, 24, 100):
        b = quadrature_coefficients(phi, q, 14)
        total = sum(c * p for c, p in zip(b, legendre_polynomials(14, q, GRID), strict=True))
        torch.testing.assert_close(total, phi(GRID), rtol=1e-8, atol=1e-8)


def test_high_degrees_in_high_dimension_keep_their_digits():
    """At q = 65 536 the plain quadrature of degree 6 would be rounding noise: N(q, 6) is 1e26."""
    b = quadrature_coefficients(lambda t: torch.exp(t), 65536, 8)
    expected = torch.tensor([1 / np.prod(np.arange(1.0, l + 1)) for l in range(9)], dtype=torch.float64)
    torch.testing.assert_close(b, expected, rtol=2e-3, atol=0)  # e^t -> sum t^l/l! as q grows, up to O(l^2/q)
    assert quadrature_coefficients(lambda t: t**2, 65536, 6)[3:].abs().max() < 1e-9


@pytest.mark.parametrize('q', [1, 0, -3, 2.5])
def test_no_sphere_below_dimension_two(q):
    with pytest.raises(ValueError, match='q >= 2'):
        legendre_polynomial(1, q, GRID)


def test_negative_order_is_refused():
    with pytest.raises(ValueError, match='order'):
        legendre_polynomial(-1, 4, GRID)
