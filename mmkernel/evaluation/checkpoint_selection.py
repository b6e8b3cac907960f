"""Label-free criteria for the choice among checkpoints, and how well each orders them by accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from mmkernel.evaluation.cloud import YARDSTICK, cloud_statistics, covariance_spectrum, effective_rank
from mmkernel.evaluation.sampled_images import sample_cloud
from mmkernel.kernels import Kernel
from mmkernel.registry import DATASETS

RISING = ('rank', 'rankme', 'feature_rank')  # larger is better; of the others smaller is
# name -> the score that is compared, larger is better
CRITERIA = {
    'rank': 'effective rank of the covariance of z / ||z||: exp of the entropy of its eigenvalues',
    'rankme': 'RankMe: exp of the entropy of the singular values of the raw embeddings; Garrido et al., ICML 2023',
    'feature_rank': "'rank' of the backbone features in place of the embeddings",
    'mmd2': 'minus MMD^2 to uniform of the embeddings',
    'alignment': 'minus mean squared distance of two views',
    'uniformity': 'minus uniformity',
    'alignment_uniformity': 'minus (alignment + uniformity): the two terms of Wang & Isola, ICML 2020, with equal weights',
}


def checkpoint_statistics(
    model: nn.Module, cfg: Any, kernel: Kernel = YARDSTICK, images: int = 1000, source: Any = None
) -> dict[str, float]:
    """Statistics of embeddings, views and features of ``images`` images, in eval mode; no label is read.

    The same images and views whatever the epoch, so that checkpoints can be compared. ``source``: default the training
    images. Every process computes its own answer: no collectives. An encoder that gives NaN or infinity has NaN statistics:
    it is never the best.
    """
    source = DATASETS.build(cfg.train_dataloader.dataset.source) if source is None else source
    cloud = sample_cloud(model, cfg, images, source)
    if not all(torch.isfinite(part).all() for part in (cloud.h, cloud.z, *(cloud.views or ()))):
        words = ('rank', 'rankme', 'feature_rank', 'mmd2', 'uniformity', *(('alignment',) if cloud.views else ()))
        return dict.fromkeys(words, math.nan)
    found = cloud_statistics(cloud.z, kernel, cloud.views, degrees=()).logged()
    return {**found, 'feature_rank': effective_rank(covariance_spectrum(cloud.h))}


def criterion_score(criterion: str, statistics: Mapping[str, float]) -> float:
    """The score by which checkpoints are ordered, larger is better; see ``CRITERIA``.

    KeyError names the criteria; ValueError where views of whole images, which an alignment needs, are absent.
    """
    if criterion not in CRITERIA:
        raise KeyError(f"criterion='{criterion}' is unknown; expected one of {', '.join(CRITERIA)}.")
    if criterion.startswith('alignment') and 'alignment' not in statistics:
        raise ValueError(
            f"criterion='{criterion}' compares two views of whole images, but this run trains on patches. Use 'rank'."
        )
    if criterion in RISING:
        return statistics[criterion]
    if criterion == 'alignment_uniformity':
        return -(statistics['alignment'] + statistics['uniformity'])
    return -statistics[criterion]


def rank_correlation(scores: Sequence[float], accuracies: Sequence[float]) -> float | None:
    """Spearman's rho: Pearson's correlation of the ranks, ties at their mean rank. None if either side never varies.

    A score of NaN, of an encoder that diverged, is below all others. ValueError for unequal lengths, accuracies of NaN, or
    fewer than 3 pairs, of which any order would be a coincidence.
    """
    from scipy.stats import rankdata

    if len(scores) != len(accuracies) or len(scores) < 3:
        raise ValueError(
            f'{len(scores)} scores and {len(accuracies)} accuracies; expected at least 3 checkpoints with one of each.'
        )
    a, b = rankdata(_comparable(scores)), rankdata(_measured(accuracies))
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def agreement(checkpoints: Sequence[Mapping[str, Any]], accuracy: str) -> dict[str, dict[str, float | None]]:
    """{criterion: dict(rho=Spearman with the accuracy, regret=percent lost by trusting it)}, over ``checkpoints``.

    Each is ``dict(statistics=checkpoint_statistics(...), <accuracy>=percent, epoch=number)``. 'epoch' stands for the habit
    of taking the last. Criteria that not every checkpoint has (alignment of runs on patches, rankme of results from before
    it was measured) are left out.
    """
    values = [float(each[accuracy]) for each in checkpoints]
    found = {}
    for criterion in ('epoch', *CRITERIA):
        if criterion == 'epoch':
            scores = [float(each['epoch']) for each in checkpoints]
        elif any(criterion.split('_uniformity')[0] not in each['statistics'] for each in checkpoints):
            continue
        else:
            scores = [criterion_score(criterion, each['statistics']) for each in checkpoints]
        found[criterion] = dict(rho=rank_correlation(scores, values), regret=regret(scores, values))
    return found


def regret(scores: Sequence[float], accuracies: Sequence[float]) -> float:
    """Accuracy lost by taking the checkpoint with the best score (the first of equals) instead of the best accuracy."""
    accuracies = _measured(accuracies)
    return float(max(accuracies) - accuracies[int(np.argmax(_comparable(scores)))])


def _comparable(scores: Sequence[float]) -> np.ndarray:
    return np.nan_to_num(np.asarray(scores, float), nan=-np.inf, posinf=np.inf, neginf=-np.inf)


def _measured(accuracies: Sequence[float]) -> np.ndarray:
    if np.isnan(accuracies := np.asarray(accuracies, float)).any():
        raise ValueError(
            f'{int(np.isnan(accuracies).sum())} of {len(accuracies)} accuracies are NaN; expected percentages.'
        )
    return accuracies
