"""Label-free statistics of an embedding cloud: spread, effective rank, uniformity, MMD to uniform, agreement of views."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from mmkernel.distributed import gather_rows, global_mean, world_size
from mmkernel.evaluation.inputs import as_features
from mmkernel.evaluation.spectrum import covariance_spectrum, effective_rank, on_sphere, rankme
from mmkernel.kernels import Kernel, LegendreKernel, legendre_polynomials, null_band, num_harmonics

YARDSTICK = LegendreKernel((1.0, 40.0, 40.0))  # Zheng et al., ICLR 2023: for runs whose objective has no kernel
DEGREES = (1, 2, 3, 4)
BLOCK = 1024  # rows of the Gram matrix at a time
RIVALS = 256  # images among which a view must find its fellow


@dataclass(frozen=True)
class CloudStatistics:
    """Of N points z^ = z / ||z|| in R^q. None: not measured, or no second views to compare with."""

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
    def mmd2_share(self) -> float:
        """MMD^2 as a fraction of that of a single point."""
        return self.mmd2 / self.mmd2_point

    @property
    def mmd2_score(self) -> float:
        """MMD^2 in standard deviations over uniform points."""
        return self.mmd2 / self.mmd2_sd

    def logged(self) -> dict[str, float]:
        """The words of a log and of the criteria by which checkpoints are compared; see :func:`embedding_statistics`."""
        words = ('std', 'rank', 'rankme', 'top_share', 'uniformity', 'mmd2', 'mmd2_sd', 'mmd2_score', 'alignment')
        return {word: value for word in words if (value := getattr(self, word)) is not None}


@torch.no_grad()
def cloud_statistics(
    z: Tensor,
    kernel: Kernel = YARDSTICK,
    views: tuple[Tensor, Tensor] | None = None,
    degrees: tuple[int, ...] = DEGREES,
    dtype: torch.dtype = torch.float64,
) -> CloudStatistics:
    """Statistics of (N, q) raw embeddings; ``views``: those of two augmentations of M images, (M, q) each.

    Takes O(N^2 q); a few thousand points say enough. Of the rows at hand: no other process takes part. ``degrees``: of the
    moments; ``dtype``: to compute in.
    ValueError: NaN rows, fewer than 2 images, unequal shapes.
    """
    pair = {} if views is None else _pair_statistics(*views, dtype)
    z = as_features(z, 'embeddings').to(dtype)
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


@torch.no_grad()
def embedding_statistics(
    z: Tensor, partner: Tensor | None = None, kernel: Kernel = YARDSTICK, max_rows: int = 1024
) -> dict[str, float]:
    """What the N rows z^ = z / ||z|| of all ranks look like on the sphere S^{q-1}; every rank gets the same numbers.

    ``z``: (B, q) this rank's raw embeddings, one per image, so that rows are independent and the null band holds;
    ``partner``: (B, q) those of another view, for the alignment. At most ``max_rows`` rows in all are looked at, the first
    of each rank: the cost is two N x N Gram matrices and their eigenvalues, O(N^2 q + N^3).

    Returns, with the value for uniform points in brackets:
        std: sqrt(q) mean_j std(z^_j) (1);
        rank: effective rank of Cov(z^), exp of the entropy of its eigenvalues (grows to q with N);
        rankme: RankMe of Garrido et al., ICML 2023: exp of the entropy of the singular values of raw z (likewise);
        top_share: share of the variance in the first direction (1/q and more, at finite N);
        uniformity: log mean_{i != j} exp(-2 ||z^_i - z^_j||^2), Wang & Isola, ICML 2020 (about -4);
        mmd2: the U statistic of MMD^2 to uniform under ``kernel`` (0);  mmd2_sd: its sd over N uniform points;
        mmd2_score: their ratio (0, give or take 1);
        alignment: mean ||z^ - partner^||^2, where there is a partner (2).
    """
    rows = max(2 if world_size() == 1 else 1, max_rows // world_size())
    z = _promote(z[:rows])
    found = cloud_statistics(
        gather_rows(z), kernel, degrees=(), dtype=z.dtype
    ).logged()  # NaN rows of any rank raise on all
    if partner is not None:
        distance = _mean_distance(on_sphere(z), on_sphere(_promote(partner[:rows])))
        found['alignment'] = float(global_mean(distance))
    return found


def _promote(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


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


def _pair_statistics(first: Tensor, second: Tensor, dtype: torch.dtype) -> dict[str, float]:
    first, second = as_features(first, 'first views').to(dtype), as_features(second, 'second views').to(dtype)
    if first.shape != second.shape:
        raise ValueError(f'two views of shapes {tuple(first.shape)} and {tuple(second.shape)}; expected equal ones.')
    a, b = on_sphere(first), on_sphere(second)
    whole = len(a) - len(a) % RIVALS or len(a)  # groups of one size: with more rivals the task is harder
    hits = [
        _second_view_is_nearest(*pair) for pair in zip(a[:whole].split(RIVALS), b[:whole].split(RIVALS), strict=True)
    ]
    return dict(alignment=float(_mean_distance(a, b)), retrieval=float(torch.cat(hits).double().mean()))


def _mean_distance(a: Tensor, b: Tensor) -> Tensor:
    """mean_i ||a_i - b_i||^2, rows first: one flat float32 mean over rows and columns loses digits."""
    return (a - b).square().sum(1).mean()


def _second_view_is_nearest(a: Tensor, b: Tensor) -> Tensor:
    similarity = a @ b.T
    own = similarity.diagonal().clone()
    rivals = similarity.fill_diagonal_(-torch.inf).amax(1)
    return own > rivals + 1e-12  # a tie is no hit: if all embeddings are one point, every view is as near as any other
