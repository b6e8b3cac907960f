"""Energy of a cloud of embeddings under a kernel, (1/N^2) sum_ij phi(z_i.z_j), and what it is when the points are uniform.

Shapes: V views, B local rows, N = B W global rows, q width, P pairs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmkernel.checks import check_views, check_words
from mmkernel.distributed import check_equal_rows, mean_over_ranks_with_gradient
from mmkernel.distributed.shards import all_rows, total
from mmkernel.kernels.engine import Engine, Pairs, fused_whole, itself, pairwise
from mmkernel.kernels.kernel import Kernel
from mmkernel.kernels.layouts import promoted
from mmkernel.kernels.legendre import check_dimension, expansion
from mmkernel.kernels.sphere import to_sphere


def kernel_energy(z: Tensor, kernel: Kernel, statistic: str = 'V', **options: Any) -> Tensor:
    """V: (1/N^2) sum_{i,j} phi(z_i.z_j);  U: 1/(N(N-1)) sum_{i != j} phi(z_i.z_j), over the N rows of all ranks.

    Zheng et al., ICLR 2023 (V statistic); Wang & Isola, ICML 2020 (U statistic, before its logarithm).

    Args:
        z: (B, q) this rank's raw embeddings, equal B on every rank; normalised here. Half precision comes out in float32.
        kernel: phi and its slope.
        statistic: 'V' keeps the diagonal (biased by (phi(1) - b_0)/N, never below b_0), 'U' leaves it out (unbiased).
        options: those of ``Engine``.

    Returns:
        A scalar: the energy of the global batch on every rank, NaN for NaN rows; gradients as ``mmkernel.distributed`` rules.

    Raises:
        ValueError: not a (B, q) matrix, q < 2, one row, or phi(1) infinite under 'V'.
    """
    if z.ndim != 2:
        raise ValueError(f'Expected embeddings of shape (B, q), got {tuple(z.shape)}. One view at a time.')
    return aligned_energies(z[None], kernel, [], statistic, **options)[1][0]


def mmd2_to_uniform(z: Tensor, kernel: Kernel, statistic: str = 'V') -> Tensor:
    """MMD^2(Q, uniform) = E K(z, z') - b_0 = sum_{l >= 1} b_l E P_l(z.z').

    'V': the squared distance of the empirical distribution, >= 0 for a positive definite kernel; uniform points give about
    sum_{l>=1} b_l / N. 'U': unbiased, zero in the mean for uniform points, may be negative.
    """
    energy, constant = kernel_energy(z, kernel, statistic), kernel.known_constant(z.shape[-1])
    if constant is None:
        kernel.coefficients(z.shape[-1], 0)  # raises: it says what is not known
    return energy - constant


def aligned_energies(
    z: Tensor, kernel: Kernel, pairs: Pairs, statistic: str = 'V', reduction: str = 'sample', **options: Any
) -> tuple[Tensor, Tensor]:
    """mean_pairs mean_n ||z^_in - z^_jn||^2 and ``kernel_energy`` of each view: (V, B, q) raw rows -> (), (V,).

    ``pairs`` may be empty; the distance is then 0. ``reduction='element'`` divides it by q. Other arguments and errors as for
    ``kernel_energy``.
    """
    check_views(z)
    engine = Engine(**options)
    q, N = check_dimension(engine.columns or z.shape[2]), all_rows(z, engine.columns)
    if N < 2:
        raise ValueError(
            f'A batch of {N} image says nothing about a distribution; at least 2 are needed. Raise train_dataloader.batch_size.'
        )
    constants = engine, kernel, kernel.monomials(q), _value_at_one(kernel, q, statistic)
    return fused_whole(_aligned_energies, promoted(z), tuple(pairs), statistic, reduction, *constants)


def _aligned_energies(
    z: Tensor,
    pairs: Pairs,
    statistic: str,
    reduction: str,
    engine: Engine,
    kernel: Kernel,
    monomials: tuple[float, ...] | None,
    phi_at_one: float,
) -> tuple[Tensor, Tensor]:
    columns, q, N = engine.columns, engine.columns or z.shape[2], all_rows(z, engine.columns)
    u, distance = to_sphere(z, pairs, reduction, columns)
    # degree 1 always, degree 2 where the (q, q) matrix is smaller than the Gram matrix
    if monomials is not None and (len(monomials) <= 2 or (len(monomials) == 3 and columns is None and q < N)):
        energies = _by_moments(u, monomials, N, columns)
        if statistic == 'U':
            energies = (energies * N - phi_at_one) / (N - 1)
    else:
        count = N * N if statistic == 'V' else N * (N - 1)
        energies = pairwise(u, _off_diagonal, (kernel, q), engine=engine, scale=1 / count)
        if statistic == 'V':
            energies = energies + phi_at_one / N
    return distance, energies


def _off_diagonal(G: Tensor, first: int, columns: Tensor, kernel: Kernel, q: int) -> tuple[Tensor, Tensor, None]:
    """sum_{j != i} phi(t_ij) and phi'(t_ij). u_i.u_i = 1 is a constant: its slope, infinite perhaps, is radial and drops out."""
    t, i_is_j = G.clamp(-1, 1), itself(first, G.shape[1], columns)
    values = kernel.phi(t, q).masked_fill(i_is_j, 0)
    return values.sum(-1), kernel.dphi(t, q).masked_fill(i_is_j, 0), None


def _by_moments(u: Tensor, monomials: tuple[float, ...], N: int, columns: int | None) -> Tensor:
    """a_0 + a_1 ||s||^2 + a_2 ||C||_F^2 with s = (1/N) sum u_i, C = (1/N) sum u_i u_i': the means of 1, t and t^2.

    Moments add up over ranks: nothing is gathered. In float32 whatever the precision, for they cost little.
    """
    a0, a1, a2 = (*monomials, 0.0, 0.0)[:3]
    if columns is not None:  # of degree 1
        return a0 + a1 * total(u.mean(1).square().sum(-1), columns)
    check_equal_rows(u.shape[1])
    energies = a0 + a1 * mean_over_ranks_with_gradient(u.mean(1)).square().sum(-1)
    if a2:
        q = u.shape[2]  # about C = 1/q of uniform points: ||C||^2 = ||C - 1/q||^2 + 1/q, for tr C = 1
        engine = Engine('float32')
        about = pairwise(u.mT, squares_about, (N / q,), engine=engine, scale=a2 / N**2, slope=2, sharded=True)
        energies = energies + about + a2 / q
    return energies


def squares_about(G: Tensor, first: int, columns: Tensor, mean: float) -> tuple[Tensor, Tensor, None]:
    """sum_j (G_ij - mean [i = j])^2."""
    K = torch.where(itself(first, G.shape[1], columns), G - mean, G)
    return K.square().sum(-1), K, None


def _value_at_one(kernel: Kernel, q: int, statistic: str) -> float:
    """phi(1); ValueError for another statistic than V and U, or where V counts an infinite phi(1)."""
    check_words(statistic=(statistic, ('V', 'U')))
    value = kernel.value_at_one(q)
    if statistic == 'V' and not math.isfinite(value):
        raise ValueError(
            f"{type(kernel).__name__} has phi(1) = {value}: the 'V' statistic counts each point against itself. Use statistic='U'."
        )
    return value


@dataclass(frozen=True)
class NullBand:
    """Mean and standard deviation of ``mmd2_to_uniform`` over N independent uniform points."""

    mean: float
    sd: float

    def score(self, value: float) -> float:
        """(value - mean) / sd: near 0 for uniform points, negative for points more even than chance would have them."""
        return (value - self.mean) / self.sd


def null_band(kernel: Kernel, q: int, count: int, statistic: str = 'U') -> NullBand:
    """U: mean 0, sd^2 = 2/(N(N-1)) sum_{l>=1} b_l^2 / N(q, l);  V: mean sum_{l>=1} b_l / N, sd (N-1)/N that of U.

    N is ``count``. Exact at every N: E[phi(u.v) | u] = b_0 for uniform v, so different pairs are uncorrelated and the
    variance of their mean is Var phi / #pairs; the diagonal of V is a constant. The law itself is a weighted sum of
    chi-squares: close to normal where many harmonics share the variance (large q), skewed to the right at q of a few.

    Raises ValueError for fewer than two points, an unknown statistic, phi(1) infinite under 'V', or a constant phi.
    """
    q = check_dimension(q)
    if int(count) != count or count < 2:
        raise ValueError(f'A null band is that of N >= 2 points, got count = {count}.')
    at_one = _value_at_one(kernel, q, statistic)
    spread = math.sqrt(profile_variance(kernel, q))
    if spread <= 1e-12 * abs(float(kernel.phi(torch.zeros((), dtype=torch.float64), q))):
        raise ValueError(f'{kernel} is constant at q = {q}: every cloud of points has the same energy.')
    sd = spread * math.sqrt(2 / (count * (count - 1)))
    if statistic == 'U':
        return NullBand(0.0, sd)
    excess = at_one - float(kernel.coefficients(q, 0)[0])
    return NullBand(excess / count, (count - 1) / count * sd)


def profile_variance(kernel: Kernel, q: int) -> float:
    """Var phi(u.v) = sum_{l>=1} b_l^2 / N(q, l) for u, v independent and uniform on S^{q-1}; by quadrature, all l at once.

    Of the deviation from b_0 rather than of phi^2: at q = 32 768 the two differ in the ninth digit and later.
    ValueError where it is not known to 1e-6.
    """
    phi = kernel.profile(q)

    def mean(f: Callable) -> float:
        try:
            return float(expansion(f, q, 0)[0])
        except ValueError as error:
            raise ValueError(f'The variance of {type(kernel).__name__} is not known: {error}') from None

    b0 = mean(phi)

    def squared_deviation(t: Tensor) -> Tensor:
        deviation = phi(t) - b0
        return torch.where(deviation.abs() > 4e-16 * abs(b0), deviation, 0).square()

    return mean(squared_deviation)
