"""The state of a cloud of embeddings from one Gram matrix: cheap enough to look at while training."""

from __future__ import annotations

import torch
from torch import Tensor

from mmkernel.distributed import gather_rows, global_mean, world_size
from mmkernel.evaluation.cloud import YARDSTICK, mean_distance, measure
from mmkernel.evaluation.inputs import as_features
from mmkernel.evaluation.spectrum import on_sphere
from mmkernel.kernels import Kernel


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
    found = point_statistics(gather_rows(z), kernel)  # NaN rows of any rank raise on all
    if partner is not None:
        found['alignment'] = float(global_mean(_distance(z, _promote(partner[:rows]))))
    return found


@torch.no_grad()
def point_statistics(
    z: Tensor, kernel: Kernel = YARDSTICK, first: Tensor | None = None, second: Tensor | None = None
) -> dict[str, float]:
    """``embedding_statistics`` of the rows at hand alone, whatever other processes hold; ``first``, ``second``: two views.

    The words of a log for what ``cloud_statistics`` measures, in the precision of ``z``, half precision in float32.
    """
    cloud = measure(as_features(z, 'embeddings'), kernel)
    found = dict(
        std=cloud.std,
        rank=cloud.rank,
        rankme=cloud.rankme,
        top_share=cloud.top_share,
        uniformity=cloud.uniformity,
        mmd2=cloud.mmd2,
        mmd2_sd=cloud.mmd2_sd,
        mmd2_score=cloud.mmd2 / cloud.mmd2_sd,
    )
    if first is not None and second is not None:
        found['alignment'] = float(_distance(as_features(first, 'first views'), as_features(second, 'second views')))
    return found


def _distance(x: Tensor, y: Tensor) -> Tensor:
    return mean_distance(on_sphere(x), on_sphere(y))


def _promote(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
