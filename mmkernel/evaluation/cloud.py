"""Label-free statistics of an embedding cloud: spread, spectrum, effective rank, RankMe, uniformity, MMD, agreement of views."""

import math
import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkernel.distributed import gather_rows, world_size
from mmkernel.evaluation.inputs import as_features, unit_rows
from mmkernel.kernels import Kernel, LegendreKernel, legendre_polynomials, null_band, num_harmonics

YARDSTICK = LegendreKernel((1.0, 40.0, 40.0))  # Zheng et al., ICLR 2023: for runs whose objective has no kernel
DEGREES = (1, 2, 3, 4)
BLOCK = 1024  # rows of the Gram matrix at a time
RIVALS = 256  # images among which a view must find the other view of its image
ROUNDING = 1e-13  # a variance below this share of the mean square is rounding of float32: (3e-7)^2


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
    uniformity: float  # log mean exp(-2 ||z^_i - z^_j||^2), Wang & Isola, ICML 2020: about -4 if uniform at large q
    moments: tuple[float, ...]  # unbiased E P_l(z^.z^') for l in DEGREES: 0 if uniform, 1 for a point
    moments_sd: tuple[float, ...]  # standard deviation of each over N uniform points
    mmd2: float  # unbiased MMD^2 to uniform under the kernel; NaN where b_0 or the variance of phi is not known
    mmd2_sd: float  # its standard deviation over N uniform points
    mmd2_point: float  # its value for a single point, phi(1) - b_0
    alignment: float | None = None  # mean ||z^_1 - z^_2||^2 over two views of an image: 2 if unrelated
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
        """The statistics in logs and in the criteria for checkpoints, by name."""
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

    O(N^2 q), on this process alone. ``degrees``: of the moments; ``dtype``: of the computation. ValueError: NaN rows, fewer
    than 2 images, unequal shapes.
    """
    pair = {} if views is None else _pair_statistics(*(as_features(view, 'views').to(dtype) for view in views))
    z = as_features(z, 'embeddings').to(dtype)
    if len(z) < 2:
        raise ValueError('one embedding is not a cloud; expected at least 2 images.')
    N, q = z.shape
    u = unit_rows(z, point=True)
    values = covariance_spectrum(u, normalize=False)
    share = values / values.sum().clamp_min(1e-300)
    *moments, repulsion, energy = _pair_means(u, kernel, degrees)
    try:
        constant, sd = float(kernel.coefficients(q, 0)[0]), null_band(kernel, q, N, 'U').sd
    except ValueError as error:  # the other statistics need no kernel
        warnings.warn(f'MMD^2 to uniform is not measured: {error}', stacklevel=3)
        constant = sd = math.nan
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
    """``cloud_statistics(...).logged()`` of the rows of all ranks, in their own precision; every rank gets the same numbers.

    ``z``: (B, q) raw embeddings of this rank, one per image, so that rows are independent and the null band holds;
    ``partner``: (B, q) of another view, for the alignment. At most ``max_rows`` rows of all ranks together are used, the
    first of each: the cost is O(N^2 q + N^3). NaN rows of any rank raise on all.
    """
    rows = max(2 if world_size() == 1 else 1, max_rows // world_size())
    dtype = torch.promote_types(z.dtype, torch.float32)
    z, *partners = (gather_rows(x[:rows].to(dtype)) for x in (z, partner) if x is not None)
    views = (z, *partners) if partners else None
    return cloud_statistics(z, kernel, views, degrees=(), dtype=dtype).logged()


def _pair_means(u: Tensor, kernel: Kernel, degrees: tuple[int, ...]) -> list[float]:
    """Means over pairs i != j of P_l(t) for l in ``degrees``, of exp(-2 ||u_i - u_j||^2) and of phi(t).

    A block at a time and without collectives, which ``kernel_energy`` has. Rows are summed in the working precision, their
    sums in double.
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
    if first.shape != second.shape:
        raise ValueError(f'two views of shapes {tuple(first.shape)} and {tuple(second.shape)}; expected equal ones.')
    a, b = unit_rows(first, point=True), unit_rows(second, point=True)
    whole = len(a) - len(a) % RIVALS or len(a)  # groups of one size: with more rivals the task is harder
    hits = []
    for x, y in zip(a[:whole].split(RIVALS), b[:whole].split(RIVALS), strict=True):
        similarity = x @ y.T
        own = similarity.diagonal().clone()
        rivals = similarity.fill_diagonal_(-torch.inf).amax(1)
        hits.append(own > rivals + 1e-12)  # a tie is no hit: in a cloud that is a point, all views are equally near
    # a sum over columns first: one float32 mean over rows and columns loses digits
    return dict(alignment=float((a - b).square().sum(1).mean()), retrieval=float(torch.cat(hits).double().mean()))


def covariance_spectrum(z: Tensor, normalize: bool = True) -> Tensor:
    """Eigenvalues of Cov(z / ||z||), largest first, float64, (q,).

    Uniform on the sphere, all q are 1/q; a collapsed dimension is a 0, and a cloud that is a point up to rounding has
    zeros only. ``z``: (N, q) raw embeddings; the divisor is N.
    """
    z = as_features(z, 'embeddings').double()
    z = unit_rows(z, point=True) if normalize else z
    size = z.square().sum() / len(z)
    z = z - z.mean(0)
    values = _squared_singular_values(z).flip(0) / len(z)
    if values.sum() <= ROUNDING * size:
        values.zero_()  # else rounding noise would seem to fill many dimensions
    return F.pad(values, (0, z.shape[1] - len(values)))


def rankme(z: Tensor) -> float:
    """RankMe: exp(-sum_k p_k log p_k), p_k = sigma_k / sum_j sigma_j + 1e-7, sigma_k the singular values of ``z``.

    Garrido et al., ICML 2023, equation 1: of raw (N, q) embeddings, neither centred nor normalised. 1 for a line through
    the origin, at most min(N, q). :func:`effective_rank` is of squares of singular values: the two can order clouds differently.
    """
    z = as_features(z, 'embeddings').double()
    sigma = _squared_singular_values(z / z.abs().max().clamp_min(1e-300)).sqrt()
    return float(torch.special.entr(sigma / sigma.sum().clamp_min(1e-300) + 1e-7).sum().exp())


def effective_rank(spectrum: Tensor) -> float:
    """exp(-sum_i p_i log p_i), p = spectrum / sum, of the eigenvalues of a covariance: how many dimensions are in use.

    Roy & Vetterli, EUSIPCO 2007; 1 for a point. It is not :func:`rankme`.
    """
    return float(torch.special.entr(spectrum / spectrum.sum().clamp_min(1e-300)).sum().exp())


def _squared_singular_values(z: Tensor) -> Tensor:
    """Rising, from the cheaper of the q x q and the N x N Gram matrix: they share the non-zero eigenvalues."""
    return torch.linalg.eigvalsh(z.T @ z if z.shape[0] >= z.shape[1] else z @ z.T).clamp_min(0)
