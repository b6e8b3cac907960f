"""Legendre polynomials on the sphere S^{q-1} of R^q, and the expansion of a profile phi in them.

P_l(q; t) = C_l^{(q/2-1)}(t) / C_l^{(q/2-1)}(1): the normalised Gegenbauer polynomials (Mueller, Spherical Harmonics, 1966).
q = 2 gives Chebyshev's T_l, q = 3 Legendre's own. Under t = u.v for u, v uniform on the sphere,
E[P_l P_k] = delta_lk / N(q, l) with N(q, l) the number of spherical harmonics of degree l.
"""

import math
from fractions import Fraction

import torch
from torch import Tensor

from mmkernel.kernels.panels import NotResolvedError, Panels, Profile, log_density, resolve, subdivide


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


def gauss_gegenbauer(q: int, nodes: int = 256) -> tuple[Tensor, Tensor]:
    """Nodes t_k and weights w_k with sum_k w_k f(t_k) = E f(u.v), exact for polynomials of degree < 2 * ``nodes``.

    Golub & Welsch (1969) on the probability weight (1-t^2)^{(q-3)/2}: with lambda = q/2 - 1 the Jacobi matrix has
    off-diagonals sqrt(k (k+2 lambda-1) / (4 (k+lambda)(k+lambda-1))), its eigenvalues are the nodes and the squared first
    components of its eigenvectors the weights. No gamma function appears, so nothing overflows at any q.
    Returns two float64 vectors of length ``nodes``.
    """
    lam = check_dimension(q) / 2 - 1
    k = torch.arange(1, nodes, dtype=torch.float64)
    squared = k * (k + 2 * lam - 1) / (4 * (k + lam) * (k + lam - 1))
    if lam == 0:  # q = 2: 0/0 in the first entry; Chebyshev's is 1/2
        squared[0] = 0.5
    jacobi = torch.diag(squared.sqrt(), 1)
    points, vectors = torch.linalg.eigh(jacobi + jacobi.T)
    return points, vectors[0] ** 2


def adapted_quadrature(phi: Profile, q: int) -> tuple[Tensor, Tensor]:
    """As ``gauss_gegenbauer``, with nodes that close in on what is rough in ``phi``."""
    panels = resolve(phi, q, 0)
    return panels.t.flatten(), (panels.weights * log_density(panels.x, q, q - 2).exp()).flatten()


def quadrature_coefficients(phi: Profile, q: int, order: int) -> Tensor:
    """b_l = N(q, l) E[phi(t) P_l(q; t)], l = 0 ... ``order``, so that phi = sum_l b_l P_l; float64, length ``order`` + 1.

    ValueError where a b_l is not known to 1e-6: see ``expansion``.
    """
    return expansion(phi, q, order)[0]


def expansion(phi: Profile, q: int, order: int) -> tuple[Tensor, Tensor]:
    """(b_0, ..., b_order) of phi and an estimate of the error of each, float64; phi may have kinks and steps.

    With w_q the density of t, w_q P_l(q; .) = -(w_{q+2} P_{l-1}(q+2; .))'/q (Rodrigues), so j integrations by parts give
        E_q[phi P_l] = E_{q+2j}[phi^(j) P_{l-j}(q+2j; .)] / (q ... (q+2j-2))
                     + sum_{i<j} sum_kinks [phi^(i) w_{q+2i+2} P_{l-i-1}(q+2i+2; .)] / (q ... (q+2i)),
    [.] being the jump at a kink. A phi that is rough where the density lies has b_l of the size of sqrt(N(q, l)), and j = 0
    keeps its digits. A smooth one has smaller b_l: at q = 65 536, sqrt(N(q, 6)) = 1e13 would eat 13 of them, and j = l
    has no cancellation. Each b_l is taken from the j whose rounding and resolution promise most; other j must agree.

    ValueError: a b_l that is neither known to 1e-6 of itself nor to be 0 beside its neighbours.
    """
    q = check_dimension(q)
    best, panels, reason = None, None, 'it is lost in the rounding of phi'
    for depth in [d for d in (0, 2, 4, 8, 16) if d < order] + [order]:  # the first are cheap and find the kinks
        try:
            panels = resolve(phi, q, depth, panels)
        except NotResolvedError as error:
            reason = str(error)
            break
        found = _estimates(panels, q, order)
        halves = _estimates(subdivide(phi, panels, ~panels.gaps, 2), q, order)  # a second rule, with other nodes
        found[1] += 2 * (found[0] - halves[0]).abs()
        found[:, _absent(phi, panels, order)] = 0
        best = found if best is None else torch.where(found[1] < best[1], found, best)
        if bool((best[1] <= 1e-6 * best[0].abs()).all()):
            return best[0], best[1]
    height = 0 if panels is None else panels.f[0].max() - panels.f[0].min()
    l = 0 if best is None else _first_unknown(*best, height)
    if l is None:
        return best[0], best[1]
    lower = ' or ask for a lower order' if l else ''
    raise ValueError(
        f'b_{l} at q = {q} is not known to 1e-6: {reason}. Give the kernel a coefficients(q, order) of its own{lower}.'
    )


def _first_unknown(b: Tensor, error: Tensor, height: float) -> int | None:
    """The first l with b_l neither known to 1e-6 of itself nor to be 0 beside the known b next to it, or beside phi's range."""
    known = error <= 1e-6 * b.abs()
    for l in (~known).nonzero().flatten().tolist():
        beside = [float(b[k].abs()) for k in (l - 1, l + 1) if 0 <= k < len(b) and known[k] and b[k] != 0]
        if error[l] > (1e-9 if b[l].abs() <= 3 * error[l] else 1e-11) * min(beside, default=height):
            return l
    return None


def _estimates(panels: Panels, q: int, order: int) -> Tensor:
    """(2, order + 1): b and its error for the best number of integrations by parts of each degree."""
    depth, gap = len(panels.f) - 1, panels.gaps
    means = []  # [j][k]: (value, error) of E_{q+2j}[phi^(j) P_k(q+2j; .)] over the panels between the gaps
    jumps = []  # [i][k]: the jumps of phi^(i) w_{q+2i+2} P_k(q+2i+2; .) over gaps
    for j, f in enumerate(panels.f):
        w = f * log_density(panels.x, q + 2 * j, q + 2 * j - 2).exp()
        values = w * torch.stack(legendre_polynomials(order - j, q + 2 * j, panels.t))
        value, error = panels.integrals(values)
        size = panels.integrals(values.abs())[0]
        if j:  # what derivatives do in a gap is in its jumps
            value, error = torch.where(gap, 0, value), torch.where(gap, size, error)
        means.append((value.sum(1), (error + 1e-14 * size).sum(1)))
    for i, jump in enumerate(panels.jumps()):
        x = panels.x[gap][:, [0, -1]]
        w = jump[:, None] * log_density(x, q + 2 * i + 2, q + 2 * i - 1).exp()
        ends = w * torch.stack(legendre_polynomials(order - i - 1, q + 2 * i + 2, x.sin()))
        value = torch.where(x[:, 0].abs() < x[:, 1].abs(), ends[..., 0], ends[..., 1])
        place = torch.where((x == 0).any(1), 0, ends.diff(dim=2)[..., 0].abs())  # a kink at 0 lies at 0
        jumps.append((value.sum(1), (place + 1e-14 * value.abs()).sum(1)))
    b, errors = [], []
    for l in range(order + 1):
        tries = []
        for j in range(min(l, depth) + 1):
            parts = [(*(float(v[l - j]) for v in means[j]), j)]
            parts += [(*(float(v[l - i - 1]) for v in jumps[i]), i + 1) for i in range(j)]
            scales = [_harmonics_over_moments(q, l, j) for *_, j in parts]
            tries.append(tuple(sum(s * p[k] for s, p in zip(scales, parts, strict=True)) for k in (0, 1)))
        value, error = min(tries, key=lambda v: v[1])
        b.append(value)
        errors.append(max([error, *(abs(value - v) - e for v, e in tries)]))
    return torch.tensor([b, errors], dtype=torch.float64)


def _absent(phi: Profile, panels: Panels, order: int) -> Tensor:
    """(order + 1,) the odd degrees if phi is even, the even ones if it is odd: their b_l are 0, however large the others."""
    mirrored, odd = phi(-panels.t), torch.arange(order + 1) % 2 == 1
    return (odd & torch.equal(mirrored, panels.f[0])) | (~odd & torch.equal(mirrored, -panels.f[0]))


def _harmonics_over_moments(q: int, l: int, j: int) -> float:
    """N(q, l) / (q (q+2) ... (q+2j-2))."""
    return float(Fraction(num_harmonics(q, l), math.prod(range(q, q + 2 * j, 2))))
