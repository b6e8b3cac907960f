"""MMD^2 of a cloud of raw rows to N(0, I_q) under a kernel of R^q, and what it is when the rows are normal.

MMD^2 = E K(u, u') - 2 E K(u, Z) + E K(Z, Z'), u, u' ~ Q, Z, Z' ~ N(0, I). Rows are not normalised: the second part is what
controls their lengths. All that it needs of a kernel: K and its slopes as functions of u.v, ||u||^2 and ||v||^2 (``in_space``),
E K(u, Z) (``target``) and E K(Z, Z') (``target_constant``).

Shapes: V views, B local rows, N = B W global rows, q width.
"""

import math
import struct
from typing import Any

import torch
from torch import Tensor

from mmkernel.checks import check_views, check_words
from mmkernel.distributed import check_equal_rows, global_mean, mean_over_ranks_with_gradient, world_size
from mmkernel.kernels.energy import NullBand, squares_about
from mmkernel.kernels.engine import Engine, fused_whole, itself, pairwise
from mmkernel.kernels.kernel import Kernel
from mmkernel.kernels.layouts import promoted
from mmkernel.kernels.legendre import check_dimension
from mmkernel.kernels.library import PolynomialKernel
from mmkernel.kernels.nodes import mean_over_chi_square
from mmkernel.kernels.radial import radial_parts


def mmd2_to_normal(z: Tensor, kernel: Kernel, statistic: str = 'V', **options: Any) -> Tensor:
    """V: (1/N^2) sum_{i,j} K(z_i, z_j) - (2/N) sum_i E K(z_i, Z) + E K(Z, Z');  U: 1/(N(N-1)) sum_{i != j} in the first part.

    Gretton et al., JMLR 2012. 'V' is >= 0 for a positive definite kernel, in the mean (K(0) - E K(Z, Z'))/N for normal rows;
    'U' is unbiased. N times V with ``EppsPulleyKernel``: SIGReg of all slices, Balestriero & LeCun, arXiv 2511.08544, 2025.

    Args:
        z: (B, q) this rank's raw embeddings, equal B on every rank, not normalised. Half precision comes out in float32.
        kernel: a ``RadialKernel``, a ``PolynomialKernel``, or sums and multiples of these.
        options: those of ``Engine``.

    Returns:
        A scalar: that of the global batch on every rank, NaN for NaN rows; gradients as ``mmkernel.distributed`` rules.

    Raises:
        ValueError: not a (B, q) matrix, q < 2, one row, or a kernel of the sphere alone.
    """
    if z.ndim != 2:
        raise ValueError(f'Expected embeddings of shape (B, q), got {tuple(z.shape)}. One view at a time.')
    energies, targets = energies_to_normal(z[None], kernel, statistic, **options)
    return (energies - 2 * targets)[0]


def energies_to_normal(z: Tensor, kernel: Kernel, statistic: str = 'V', **options: Any) -> tuple[Tensor, Tensor]:
    """E K(u, u') and E K(u, Z) of each view, both less E K(Z, Z'): (V, B, q) raw rows -> (V,), (V,).

    MMD^2 is the first less twice the second. Arguments and errors as for ``mmd2_to_normal``.
    """
    check_words(statistic=(statistic, ('V', 'U')))
    check_of_space(kernel)
    check_views(z)
    q, N = check_dimension(z.shape[2]), z.shape[1] * world_size()
    if N < 2:
        raise ValueError(
            f'A batch of {N} image says nothing about a distribution; at least 2 are needed. Raise train_dataloader.batch_size.'
        )
    z, constant = promoted(z), kernel.target_constant(q)
    # N numbers: in float64, so that what is left of a small difference is not their rounding
    rho = z.square().sum(-1, dtype=z.dtype if z.device.type == 'mps' else torch.float64)
    # what is taken off pairs is rounded to their type; the target makes that good
    taken_off = constant if z.dtype == torch.float64 else struct.unpack('f', struct.pack('f', constant))[0]
    targets = global_mean((kernel.target(rho, q).mean(-1) - (constant + taken_off) / 2).to(z.dtype))
    if statistic == 'V' and q < N and (powers := _quadratic(kernel, q)) is not None:
        return 2 * targets + _by_moments(z, *powers), targets
    return fused_whole(_energies, z, kernel, statistic, taken_off, Engine(**options)), targets


def _energies(z: Tensor, kernel: Kernel, statistic: str, constant: float, engine: Engine) -> Tensor:
    N = z.shape[1] * world_size()
    count = N * N if statistic == 'V' else N * (N - 1)
    constants = kernel, z.shape[2], statistic, constant
    return pairwise(z, _in_space, constants, first_pass=_squared_norms, engine=engine, scale=1 / count)


def _squared_norms(G: Tensor, first: int, columns: Tensor, *constants: Any) -> Tensor:
    """||u_i||^2 as the products have it: the distance of a row from itself is then 0 in any precision."""
    return G.masked_fill(~itself(first, G.shape[1], columns), 0).sum(-1)


def _in_space(
    G: Tensor,
    first: int,
    columns: Tensor,
    kernel: Kernel,
    q: int,
    statistic: str,
    constant: float,
    rho: Tensor,
    everyone: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """sum_j K(u_i, u_j) - constant, dK/d(u_i.u_j), and 2 sum_j dK/d||u_i||^2: the last is what u_i itself is multiplied by."""
    values, slope, of_norm = kernel.in_space(G, rho[..., None], everyone[:, None], q)
    values = values - constant
    if statistic == 'U':
        i_is_j = itself(first, G.shape[1], columns)
        values, slope, of_norm = (x.masked_fill(i_is_j, 0) for x in (values, slope, of_norm))
    return values.sum(-1), slope, 2 * of_norm.sum(-1)


def _by_moments(z: Tensor, a1: float, a2: float) -> Tensor:
    """MMD^2 of a_0 + a_1 u.v + a_2 (u.v)^2: a_1 ||s||^2 + a_2 ||C - I||_F^2, s = (1/N) sum u_i, C = (1/N) sum u_i u_i'.

    Costs N q^2; nothing is gathered. In float32 whatever the precision.
    """
    check_equal_rows(z.shape[1])
    N = z.shape[1] * world_size()
    found = a1 * mean_over_ranks_with_gradient(z.mean(1)).square().sum(-1)
    about = pairwise(z.mT, squares_about, (float(N),), engine=Engine('float32'), scale=a2 / N**2, slope=2, sharded=True)
    return found + about


def _quadratic(kernel: Kernel, q: int) -> tuple[float, float] | None:
    """(a_1, a_2) of a K that is a_0 + a_1 u.v + a_2 (u.v)^2 in all of R^q, else None."""
    parts = [part for part in kernel.modules() if isinstance(part, Kernel) and not list(part.children())]
    if not all(isinstance(part, PolynomialKernel) for part in parts):
        return None
    powers = kernel.monomials(q)
    return (*powers[1:], 0.0, 0.0)[:2] if len(powers) <= 3 else None


def check_of_space(kernel: Kernel) -> None:
    """ValueError for a kernel, or a part of one, that is known on the sphere alone."""
    for part in kernel.modules():
        if isinstance(part, Kernel) and not hasattr(part, 'in_space'):
            raise ValueError(
                f'{type(part).__name__} is a kernel of the sphere, and says nothing of rows of other lengths. Against N(0, I) take '
                "a radial kernel such as InverseMultiquadricKernel(c='q'), a PolynomialKernel, or a sum of such kernels; or "
                "compare with target='uniform_sphere'."
            )


def null_band_to_normal(kernel: Kernel, q: int, count: int, statistic: str = 'U') -> NullBand:
    """Of ``mmd2_to_normal`` over N = ``count`` rows of N(0, I), for a radial kernel.

    U: mean 0, sd^2 = 2/(N(N-1)) (E K~(Z, Z')^2 - 2 E T~(Z)^2), K~ and T~ being K and E K(u, Z) less E K(Z, Z').
    V: mean (K(0) - E K(Z, Z'))/N, sd (N-1)/N that of U. Exact at every N, as ``null_band`` is. ValueError as there.
    """
    check_words(statistic=(statistic, ('V', 'U')))
    check_of_space(kernel)
    if not radial_parts(kernel):
        raise ValueError(f'{kernel}: the null band against N(0, I) is known for radial kernels alone.')
    q = check_dimension(q)
    if int(count) != count or count < 2:
        raise ValueError(f'A null band is that of N >= 2 points, got count = {count}.')
    constant, zero = kernel.target_constant(q), torch.zeros((), dtype=torch.float64)

    def squared_deviation(rho: Tensor) -> Tensor:  # r^2 = 2 rho in law
        return (kernel.in_space(-rho, zero, zero, q)[0] - constant).square()

    pairs = mean_over_chi_square(squared_deviation, q)
    singles = mean_over_chi_square(lambda rho: (kernel.target(rho, q) - constant).square(), q)
    sd = math.sqrt(max(pairs - 2 * singles, 0.0) * 2 / (count * (count - 1)))
    if statistic == 'U':
        return NullBand(0.0, sd)
    return NullBand((kernel.value_at_zero(q) - constant) / count, (count - 1) / count * sd)
