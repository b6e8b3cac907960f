"""Legendre polynomials on the sphere S^{q-1} of R^q, and the expansion of a profile phi in them.

P_l(q; t) = C_l^{(q/2-1)}(t) / C_l^{(q/2-1)}(1): the normalised Gegenbauer polynomials (Mueller, Spherical Harmonics, 1966).
q = 2 gives Chebyshev's T_l, q = 3 Legendre's own. Under t = u.v for u, v uniform on the sphere,
E[P_l P_k] = delta_lk / N(q, l) with N(q, l) the number of spherical harmonics of degree l.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

Profile = Callable[[Tensor], Tensor]

_LARGEST_GRAPH = 20_000  # nodes: nested differentiation of a root or a product grows exponentially, to all memory at 12


def check_dimension(q: int) -> int:
    """q >= 2, as an int: on the line (q = 1) the sphere is two points and has no rotation to be invariant to."""
    if int(q) != q or q < 2:
        raise ValueError(
            f'The sphere S^(q-1) needs an embedding width q >= 2, got q = {q}. Check the last width of the neck.'
        )
    return int(q)


def legendre_polynomials(order: int, q: int, t: Tensor) -> list[Tensor]:
    """[P_0, ..., P_order] by (l+q-2) P_{l+1} = (2l+q-2) t P_l - l P_{l-1}, P_0 = 1, P_1 = t.

    Stable forward on [-1, 1] for every q >= 2. ``t``: any shape; each result has that shape and type.
    """
    q = check_dimension(q)
    if int(order) != order or order < 0:
        raise ValueError(f'The order of a Legendre polynomial is an integer >= 0, got {order}.')
    values = [torch.ones_like(t), t][: order + 1]
    for l in range(1, order):
        values.append(((2 * l + q - 2) * t * values[l] - l * values[l - 1]) / (l + q - 2))
    return values


def legendre_polynomial(order: int, q: int, t: Tensor) -> Tensor:
    """P_l(q; t) for l = ``order``; shape and type of ``t``."""
    return legendre_polynomials(order, q, t)[order]


def legendre_derivative(order: int, q: int, t: Tensor) -> Tensor:
    """P_l'(q; t) = l (l+q-2) / (q-1) P_{l-1}(q+2; t)."""
    if order == 0:
        return torch.zeros_like(t)
    return order * (order + q - 2) / (check_dimension(q) - 1) * legendre_polynomial(order - 1, q + 2, t)


def num_harmonics(q: int, order: int) -> int:
    """N(q, l) = (2l+q-2)/l * binom(l+q-3, l-1), N(q, 0) = 1: spherical harmonics of degree l in R^q, exactly."""
    q = check_dimension(q)
    if order == 0:
        return 1
    return (2 * order + q - 2) * math.comb(order + q - 3, order - 1) // order


def monomial_coefficients(order: int, q: int) -> list[list[float]]:
    """Row l: the coefficients of P_l(q; t) in 1, t, ..., t^order, by the three-term recurrence."""
    q = check_dimension(q)
    rows = [[1.0] + [0.0] * order, [0.0, 1.0] + [0.0] * (order - 1)][: order + 1]
    for l in range(1, order):
        shifted = [0.0] + rows[l][:-1]
        rows.append([((2 * l + q - 2) * s - l * p) / (l + q - 2) for s, p in zip(shifted, rows[l - 1], strict=True)])
    return rows


@lru_cache(maxsize=64)
def gauss_gegenbauer(q: int, nodes: int = 256) -> tuple[Tensor, Tensor]:
    """Nodes t_k and weights w_k with sum_k w_k f(t_k) = E f(u.v), exact for polynomials of degree < 2 * ``nodes``.

    Golub & Welsch (1969) on the probability weight (1-t^2)^{(q-3)/2}: with lambda = q/2 - 1 the Jacobi matrix has
    off-diagonals sqrt(k (k+2 lambda-1) / (4 (k+lambda)(k+lambda-1))), its eigenvalues are the nodes and the squared first
    components of its eigenvectors the weights. No gamma function appears, so nothing overflows at any q.
    Returns two float64 vectors of length ``nodes``.
    """
    q = check_dimension(q)
    lam = q / 2 - 1
    k = torch.arange(1, nodes, dtype=torch.float64)
    squared = k * (k + 2 * lam - 1) / (4 * (k + lam) * (k + lam - 1))
    if lam == 0:  # q = 2: 0/0 in the first entry; Chebyshev's is 1/2
        squared[0] = 0.5
    jacobi = torch.diag(squared.sqrt(), 1)
    points, vectors = torch.linalg.eigh(jacobi + jacobi.T)
    return points, vectors[0] ** 2


@lru_cache(maxsize=64)
def angular_quadrature(q: int) -> tuple[Tensor, Tensor]:
    """Nodes t_k and weights w_k with sum_k w_k f(t_k) = E f(u.v): as ``gauss_gegenbauer``, also for f of the distance ||u-v||.

    Gauss & Legendre's rule in the angle a, t = cos a, density sin^{q-2} a. The distance is 2 sin(a/2): what has a corner at
    t = 1 is smooth in a. At large q the density reaches no corner, and ``gauss_gegenbauer`` keeps more digits.
    """
    if check_dimension(q) >= 100:
        return gauss_gegenbauer(q)
    x, w = gauss_gegenbauer(3, 512)
    angle = (1 + x) * (math.pi / 2)
    w = w * angle.sin() ** (q - 2)
    return angle.cos(), w / w.sum()


def quadrature_coefficients(phi: Profile, q: int, order: int) -> Tensor:
    """b_l = N(q, l) E[phi(t) P_l(q; t)], l = 0 ... ``order``, so that phi = sum_l b_l P_l; float64, length ``order`` + 1.

    E[phi P_l] is of the size of b_l / N(q, l): where sqrt(N) eats the 16 digits of float64, Rodrigues' formula
    E_q[phi P_l] = E_{q+2l}[phi^(l)] / (q (q+2) ... (q+2l-2)) takes over, which has no cancellation.
    """
    t, w = angular_quadrature(q)
    values = phi(t)
    coefficients = []
    for l, p in enumerate(legendre_polynomials(order, q, t)):
        size = num_harmonics(q, l)
        if size < 1e10:
            coefficients.append(float(size * (w * values * p).sum()))
        else:
            coefficients.append(_rodrigues(phi, q, l))
    return torch.tensor(coefficients, dtype=torch.float64)


def _rodrigues(phi: Profile, q: int, l: int) -> float:
    t, w = gauss_gegenbauer(q + 2 * l, 64)
    with torch.enable_grad():
        t = t.clone().requires_grad_()
        values = phi(t)
        for degree in range(l):
            if _graph_exceeds(values, _LARGEST_GRAPH):
                raise ValueError(
                    f'b_{l} at q = {q} needs the derivative of order {l} of phi, and autograd has grown too large at order '
                    f'{degree}. Ask for an order <= {degree}, or give the kernel a coefficients(q, order) of its own.'
                )
            if not values.requires_grad:  # a polynomial of lower degree
                return 0.0
            (values,) = torch.autograd.grad(
                values.sum(), t, create_graph=True, allow_unused=True, materialize_grads=True
            )
    falling = math.prod((num / den for num, den in _harmonics_over_moments(q, l)), start=1.0)
    return falling * float((w * values.detach()).sum())


def _graph_exceeds(values: Tensor, limit: int) -> bool:
    """Whether the autograd graph behind ``values`` has more than ``limit`` nodes."""
    seen, open_ends = set(), [values.grad_fn]
    while open_ends and len(seen) <= limit:
        node = open_ends.pop()
        if node is not None and node not in seen:
            seen.add(node)
            open_ends += [parent for parent, _ in node.next_functions]
    return len(seen) > limit


def _harmonics_over_moments(q: int, l: int) -> list[tuple[float, float]]:
    """N(q, l) / (q (q+2) ... (q+2l-2)) as a product of moderate factors; it tends to 1/l! for large q."""
    # N(q, l) = (2l+q-2)/(q-2+l) * binom(l+q-2, l); binom = prod_{k=0}^{l-1} (q-1+k) / (1+k)
    factors = [((q - 1 + k) / (1 + k), float(q + 2 * k)) for k in range(l)]
    return [(float(2 * l + q - 2), float(q - 2 + l)), *factors]
