"""The state of a cloud of embeddings from one Gram matrix: cheap enough to look at while training."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkernel.distributed import gather_rows, global_mean, world_size
from mmkernel.evaluation.spectrum import covariance_spectrum, effective_rank
from mmkernel.kernels import Kernel, LegendreKernel, null_band

YARDSTICK = LegendreKernel((1.0, 40.0, 40.0))  # Zheng et al., ICLR 2023: for runs whose objective has no kernel


@torch.no_grad()
def embedding_statistics(
    z: Tensor, partner: Tensor | None = None, kernel: Kernel = YARDSTICK, max_rows: int = 1024
) -> dict[str, float]:
    """What the N rows z^ = z / ||z|| of all ranks look like on the sphere S^{q-1}; every rank gets the same numbers.

    ``z``: (B, q) this rank's raw embeddings, one per image, so that rows are independent and the null band holds;
    ``partner``: (B, q) those of another view, for the alignment. At most ``max_rows`` rows in all are looked at, the first
    of each rank: the cost is one N x N Gram matrix and its eigenvalues, O(N^2 q + N^3).

    Returns, with the value for uniform points in brackets:
        std: sqrt(q) mean_j std(z^_j) (1);
        rank: effective rank of the covariance, RankMe of Garrido et al., ICML 2023, on centred points (grows to q with N);
        top_share: share of the variance in the first direction (1/q and more, at finite N);
        uniformity: log mean_{i != j} exp(-2 ||z^_i - z^_j||^2), Wang & Isola, ICML 2020 (about -4);
        mmd2: the U statistic of MMD^2 to uniform under ``kernel`` (0);  mmd2_sd: its sd over N uniform points;
        mmd2_score: their ratio (0, give or take 1);
        alignment: mean ||z^ - partner^||^2, where there is a partner (2).
    """
    rows = max(2 if world_size() == 1 else 1, max_rows // world_size())
    z = _promote(z[:rows])
    found = point_statistics(gather_rows(z), kernel)
    if partner is not None:
        found['alignment'] = float(global_mean(_squared_distance(z, _promote(partner[:rows]))))
    return found


@torch.no_grad()
def point_statistics(
    z: Tensor, kernel: Kernel = YARDSTICK, first: Tensor | None = None, second: Tensor | None = None
) -> dict[str, float]:
    """``embedding_statistics`` of the rows at hand alone, whatever other processes hold; ``first``, ``second``: two views."""
    points = F.normalize(_promote(z), dim=1)
    N, q = points.shape
    spectrum = covariance_spectrum(points, normalize=False)
    t = (points @ points.T).clamp_(-1, 1).fill_diagonal_(0)
    mmd2 = _mean_over_pairs(kernel.phi(t, q)) - float(kernel.coefficients(q, 0)[0])
    band = null_band(kernel, q, N, 'U')
    found = dict(
        std=math.sqrt(q) * float(points.std(0, correction=0).mean()),
        rank=effective_rank(spectrum),
        top_share=float(spectrum[0] / spectrum.sum().clamp_min(1e-300)),
        uniformity=math.log(max(_mean_over_pairs((4 * (t - 1)).exp()), 1e-300)),
        mmd2=mmd2,
        mmd2_sd=band.sd,
        mmd2_score=band.score(mmd2),
    )
    if first is not None and second is not None:
        found['alignment'] = float(_squared_distance(_promote(first), _promote(second)))
    return found


def _squared_distance(x: Tensor, y: Tensor) -> Tensor:
    return (F.normalize(x, dim=1) - F.normalize(y, dim=1)).square().sum(1).mean()


def _mean_over_pairs(values: Tensor) -> float:
    """Mean of the entries off the diagonal of an N x N matrix; rows in the working precision, their sum in double."""
    values.fill_diagonal_(0)
    return float(values.sum(1).double().sum()) / (len(values) * (len(values) - 1))


def _promote(x: Tensor) -> Tensor:
    return x.detach() if x.dtype == torch.float64 else x.detach().float()
