"""What can be said about a cloud of embeddings without a label."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from mmkernel.evaluation.inputs import as_features
from mmkernel.evaluation.spectrum import covariance_spectrum, effective_rank, on_sphere, rankme
from mmkernel.kernels import Kernel, LegendreKernel, legendre_polynomials, null_band, num_harmonics

YARDSTICK = LegendreKernel((1.0, 40.0, 40.0))  # Zheng et al., ICLR 2023: for runs whose objective has no kernel
DEGREES = (1, 2, 3, 4)
BLOCK = 1024  # rows of the Gram matrix at a time
RIVALS = 256  # images among which a view must find its fellow


@dataclass(frozen=True)
class CloudStatistics:
    """Of N points z^ = z / ||z|| in R^q. None: there were no second views to compare with."""

    images: int  # N
    width: int  # q
    resultant: float  # ||mean z^||: 1 if all images share one embedding, about 1/sqrt(N) if uniform
    std: float  # sqrt(q) times the mean standard deviation per dimension: 1 if uniform
    rank: float  # effective rank of Cov(z^): exp of the entropy of its eigenvalues
    dimensions: int  # fewest directions that hold 99 % of the variance
    top_share: float  # share of the variance in the first direction
    uniformity: float  # log mean exp(-2 ||z^_i - z^_j||^2); the uniform distribution has about -4 at large q
    moments: tuple[float, ...]  # unbiased E P_l(z^.z^') for l in DEGREES: 0 if uniform, 1 for a point
    moments_sd: tuple[float, ...]  # standard deviation of each over N uniform points
    mmd2: float  # unbiased MMD^2 to uniform under the kernel; NaN where b_0 or the variance of phi is not known
    mmd2_sd: float  # its standard deviation over N uniform points
    mmd2_point: float  # its value for a single point, phi(1) - b_0
    alignment: float | None = None  # mean ||z^_1 - z^_2||^2 over two views of an image
    retrieval: float | None = None  # share of images whose second view is the nearest to their first among 256 images'
    rankme: float | None = None  # RankMe: exp of the entropy of the singular values of raw z

    @property
    def spread(self) -> float:
        """``std`` under its earlier name."""
        return self.std

    @property
    def largest(self) -> float:
        """``top_share`` under its earlier name."""
        return self.top_share

    @property
    def mmd2_share(self) -> float:
        """MMD^2 as a fraction of that of a single point."""
        return self.mmd2 / self.mmd2_point


@torch.no_grad()
def cloud_statistics(
    z: Tensor, kernel: Kernel = YARDSTICK, views: tuple[Tensor, Tensor] | None = None
) -> CloudStatistics:
    """Statistics of (N, q) raw embeddings; ``views``: those of two augmentations of M images, (M, q) each.

    In double. Takes O(N^2 q); a few thousand points say enough. Of the rows at hand: no other process takes part.
    ValueError: NaN rows, fewer than 2 images, unequal shapes.
    """
    pair = {} if views is None else _pair_statistics(*views)
    return measure(as_features(z, 'embeddings').double(), kernel, DEGREES, **pair)


def measure(z: Tensor, kernel: Kernel, degrees: tuple[int, ...] = (), **pair: float) -> CloudStatistics:
    """``cloud_statistics`` in the precision of ``z``, with the moments of ``degrees`` only; ``pair``: what views have shown."""
    if len(z) < 2:
        raise ValueError('one embedding is no cloud; expected at least 2 images.')
    N, q = z.shape
    u = on_sphere(z)
    values = covariance_spectrum(u, normalize=False)
    share = values / values.sum().clamp_min(1e-300)
    *moments, repulsion, energy = _pair_means(u, kernel, degrees)
    constant, sd = _null(kernel, q, N)
    return CloudStatistics(
        images=N,
        width=q,
        resultant=float(u.mean(0).norm()),
        std=float(u.std(0, correction=0).mean()) * q**0.5,
        rank=effective_rank(values),
        dimensions=int((share.cumsum(0) < 0.99).sum()) + 1 if values[0] > 0 else 0,
        top_share=float(share[0]),
        rankme=rankme(z),
        uniformity=math.log(max(repulsion, 1e-300)),
        moments=tuple(moments),
        moments_sd=tuple((2 / (N * (N - 1) * num_harmonics(q, l))) ** 0.5 for l in degrees),
        mmd2=energy - constant,
        mmd2_sd=sd,
        mmd2_point=kernel.value_at_one(q) - constant,
        **pair,
    )


def _null(kernel: Kernel, q: int, N: int) -> tuple[float, float]:
    """b_0 and the sd of MMD^2 over uniform points; NaN, and a warning, where they are not known: a run goes on without."""
    try:
        return float(kernel.coefficients(q, 0)[0]), null_band(kernel, q, N, 'U').sd
    except ValueError as error:
        warnings.warn(f'MMD^2 to uniform is not measured: {error}', stacklevel=4)
        return math.nan, math.nan


def _pair_means(u: Tensor, kernel: Kernel, degrees: tuple[int, ...]) -> list[float]:
    """Means over pairs i != j of P_l(t) for l in ``degrees``, of exp(-2 ||u_i - u_j||^2) and of phi(t).

    Of the rows at hand, a block at a time: one process may look at its own cloud while others do something else, which
    ``kernel_energy`` does not allow. Rows are summed in the working precision, their sums in double.
    """
    N, q = u.shape
    sums = torch.zeros(len(degrees) + 2, dtype=torch.float64, device=u.device)
    for start in range(0, N, BLOCK):
        t = (u[start : start + BLOCK] @ u.T).clamp_(-1, 1)
        itself = torch.zeros_like(t, dtype=torch.bool)
        itself.diagonal(start).fill_(True)
        t.masked_fill_(itself, 0)  # phi may be infinite at 1
        polynomials = legendre_polynomials(max(degrees), q, t) if degrees else []
        tables = [*[polynomials[l] for l in degrees], (4 * (t - 1)).exp(), kernel.phi(t, q)]
        sums += torch.stack([table.masked_fill(itself, 0).sum(1).double().sum() for table in tables])
    return (sums / (N * (N - 1))).tolist()


def _pair_statistics(first: Tensor, second: Tensor) -> dict[str, float]:
    first, second = as_features(first, 'first views').double(), as_features(second, 'second views').double()
    if first.shape != second.shape:
        raise ValueError(f'two views of shapes {tuple(first.shape)} and {tuple(second.shape)}; expected equal ones.')
    a, b = on_sphere(first), on_sphere(second)
    whole = len(a) - len(a) % RIVALS or len(a)  # groups of one size: with more rivals the task is harder
    hits = [_own_is_nearest(*pair) for pair in zip(a[:whole].split(RIVALS), b[:whole].split(RIVALS), strict=True)]
    return dict(alignment=float(mean_distance(a, b)), retrieval=float(torch.cat(hits).double().mean()))


def mean_distance(a: Tensor, b: Tensor) -> Tensor:
    """mean_i ||a_i - b_i||^2, rows first: one flat float32 mean over rows and columns loses digits."""
    return (a - b).square().sum(1).mean()


def _own_is_nearest(a: Tensor, b: Tensor) -> Tensor:
    similarity = a @ b.T
    own = similarity.diagonal().clone()
    rivals = similarity.fill_diagonal_(-torch.inf).amax(1)
    return own > rivals + 1e-12  # a tie is no hit: if all embeddings are one point, every view is as near as any other
