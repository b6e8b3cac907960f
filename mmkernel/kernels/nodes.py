"""Nodes and weights of expectations that kernels need: of Beta, Gamma and chi-square variables, and of fewer frequencies.

All are trapezoidal rules in a variable in which the integrand decays doubly exponentially on the side of a power s^{a-1}
(Takahasi & Mori, 1974): no gamma function appears, so nothing overflows at any q, and weights are normalised by their sum.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

_TAIL = 92.0  # a weight below e^-92 is left out


def beta_nodes(a: float, b: float, nodes: int) -> tuple[Tensor, Tensor]:
    """(s, w) with sum_k w_k e^{-x s_k} = E e^{-x s} = M(a, a + b, -x), s ~ Beta(a, b): Kummer's function of a negative argument.

    s = tanh^2 u, u = e^{tau - e^-tau} / sqrt(2 (a + b)). 64 nodes: 1e-13 for x up to 4 (a + b), 1e-10 up to 20 (a + b);
    96: 1e-14 up to 50 (a + b). float64.
    """
    centre, decay = math.log(2 * (a + b)) / -2, _TAIL / (2 * b)
    last = math.acosh(math.exp(decay)) if decay < 5 else decay + math.log(2)
    tau = torch.linspace(-math.log(_TAIL / (4 * a)), math.log(last) - centre, nodes, dtype=torch.float64)
    log_u = centre + tau - (-tau).exp()
    u = log_u.exp()
    log_tanh = torch.where(u > 1e-8, u.tanh().log(), log_u)
    log_sech = math.log(2) - u - torch.log1p((-2 * u).exp())
    log_w = 2 * b * log_sech + (2 * a - 1) * log_tanh + log_u + torch.log1p((-tau).exp())
    return u.tanh().square(), log_w.softmax(0)


def gamma_nodes(a: float, typical: float = 1.0, nodes: int = 128) -> tuple[Tensor, Tensor]:
    """(s, w) with sum_k w_k e^{-x s_k} = E e^{-x s} = (1 + x)^-a, s ~ Gamma(a); densest about s = ``typical``. float64."""
    tau = torch.linspace(-math.log(_TAIL / (2 * a)), math.log(_TAIL / typical), nodes, dtype=torch.float64)
    log_s = math.log(typical) + tau - (-tau).exp()
    log_w = a * log_s - log_s.exp() + torch.log1p((-tau).exp())
    return log_s.exp(), log_w.softmax(0)


def mean_over_chi_square(function: Callable[[Tensor], Tensor], q: int, nodes: int = 1001) -> float:
    """E function(rho), rho = ||Z||^2 for Z ~ N(0, I_q); in log rho. ``function`` works entry by entry, in float64."""
    first, last = math.log(q) - 80 / q - 14 / math.sqrt(q), math.log(q + 100 + 13 * math.sqrt(2 * q))
    y = torch.linspace(first, last, nodes, dtype=torch.float64)
    weights = (q / 2 * y - y.exp() / 2).softmax(0)
    return float((weights * function(y.exp())).sum())


def fewer_frequencies(frequencies: Tensor, weights: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """``nodes`` (f, w) with the sum_k w_k cos(f_k r) of many, all weights > 0: Gauss' rule of that discrete measure in f^2.

    Lanczos with full orthogonalisation (Golub & Welsch, 1969; Gragg & Harrod, 1984). cos(f r) is a polynomial of degree
    2 ``nodes`` - 1 in f^2 to rounding while f r < 4 ``nodes`` - 40 or so.
    """
    squared, total = frequencies.square(), weights.sum()
    basis, diagonal, below = [(weights / total).sqrt()], [], []
    for _ in range(nodes):
        v = squared * basis[-1]
        diagonal.append(float(v @ basis[-1]))
        known = torch.stack(basis)
        for _ in range(2):
            v = v - (known @ v) @ known
        below.append(float(v.norm()))
        if below[-1] <= 1e-14 * float(squared.max()):
            break
        basis.append(v / below[-1])
    jacobi = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    for i, entry in enumerate(below[: len(diagonal) - 1]):
        jacobi[i, i + 1] = jacobi[i + 1, i] = entry
    points, vectors = torch.linalg.eigh(jacobi)
    return points.clamp_min(0).sqrt(), total * vectors[0].square()
