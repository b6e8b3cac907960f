"""Choice of a checkpoint without labels: criteria, their agreement with accuracies, and detection of untrained weights."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from mmkernel.evaluation.cloud import YARDSTICK, cloud_statistics, covariance_spectrum, effective_rank
from mmkernel.evaluation.sampled_images import sample_cloud, training_source
from mmkernel.kernels import Kernel

RISING = ('rank', 'rankme', 'feature_rank')  # larger is better; smaller is for the others
CRITERIA = {  # name: the score that is compared, larger is better
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

    The images and views are the same in every epoch. ``source``: default the training images. No collectives. An encoder that
    gives NaN or infinity has NaN statistics: it is never the best.
    """
    source = training_source(cfg) if source is None else source
    cloud = sample_cloud(model, cfg, images, source)
    if not all(torch.isfinite(part).all() for part in (cloud.h, cloud.z, *(cloud.views or ()))):
        words = ('rank', 'rankme', 'feature_rank', 'mmd2', 'uniformity', *(('alignment',) if cloud.views else ()))
        return dict.fromkeys(words, math.nan)
    found = cloud_statistics(cloud.z, kernel, cloud.views, degrees=()).logged()
    return {**found, 'feature_rank': effective_rank(covariance_spectrum(cloud.h))}


def _words(criterion: str) -> tuple[str, ...]:
    return ('alignment', 'uniformity') if criterion == 'alignment_uniformity' else (criterion,)


def criterion_score(criterion: str, statistics: Mapping[str, float]) -> float:
    """The score by which checkpoints are ordered, larger is better; see ``CRITERIA``.

    KeyError names the criteria; ValueError where views of whole images, which an alignment needs, are absent.
    """
    if criterion not in CRITERIA:
        raise KeyError(f"criterion='{criterion}' is unknown; expected one of {', '.join(CRITERIA)}.")
    if 'alignment' in _words(criterion) and 'alignment' not in statistics:
        raise ValueError(
            f"criterion='{criterion}' compares two views of whole images, but this run trains on patches. Use 'rank'."
        )
    size = sum(statistics[word] for word in _words(criterion))
    return size if criterion in RISING else -size


def rank_correlation(scores: Sequence[float], accuracies: Sequence[float]) -> float | None:
    """Spearman's rho. None if either side is constant; a score of NaN (a diverged encoder) is below all others.

    ValueError for unequal lengths, accuracies of NaN, or fewer than 3 pairs, whose order would be a coincidence.
    """
    from scipy.stats import spearmanr

    if len(scores) != len(accuracies) or len(scores) < 3:
        given = f'{len(scores)} scores and {len(accuracies)} accuracies'
        raise ValueError(f'{given}; expected at least 3 checkpoints with one of each.')
    a, b = _paired(scores, accuracies)
    return None if min(len(set(a)), len(set(b))) == 1 else float(spearmanr(a, b).statistic)


def regret(scores: Sequence[float], accuracies: Sequence[float]) -> float:
    """Accuracy lost by taking the checkpoint with the best score (the first of equals) instead of the best accuracy."""
    scores, accuracies = _paired(scores, accuracies)
    return float(max(accuracies) - accuracies[int(np.argmax(scores))])


def agreement(checkpoints: Sequence[Mapping[str, Any]], accuracy: str) -> dict[str, dict[str, float | None]]:
    """{criterion: dict(rho=Spearman with the accuracy, regret=percent lost by trusting it)}, over ``checkpoints``.

    Each is ``dict(statistics=checkpoint_statistics(...), <accuracy>=percent, epoch=number)``. 'epoch' stands for the habit
    of taking the last. Criteria that not every checkpoint has (alignment of runs on patches) are left out.
    """
    scores = {'epoch': [float(each['epoch']) for each in checkpoints]}
    for criterion in CRITERIA:
        if all(word in each['statistics'] for each in checkpoints for word in _words(criterion)):
            scores[criterion] = [criterion_score(criterion, each['statistics']) for each in checkpoints]
    values = [float(each[accuracy]) for each in checkpoints]
    return {name: dict(rho=rank_correlation(s, values), regret=regret(s, values)) for name, s in scores.items()}


def _paired(scores: Sequence[float], accuracies: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    if bad := int(np.isnan(accuracies).sum()):
        raise ValueError(f'{bad} of {len(accuracies)} accuracies are NaN; expected percentages.')
    return np.nan_to_num(np.asarray(scores, float), nan=-np.inf, posinf=np.inf, neginf=-np.inf), np.asarray(accuracies)


def untrained_encoder(cfg: Any, seed: int = 0) -> nn.Module:
    """The model of ``cfg`` as it is before its first step; the caller's random state is left alone."""
    from mmkernel.models import build_model  # imports timm, which takes seconds; cached features need no model

    with torch.random.fork_rng(devices=[]):  # the model is made on the CPU: the random state of no GPU is read or set
        torch.default_generator.manual_seed(seed)
        model = build_model(cfg)
        model.init_weights()
    return model


class UntrainedError(ValueError):
    """Weights that no step has changed."""


def check_trained(model: nn.Module, meta: Mapping[str, Any] | None = None, source: str = 'the model') -> None:
    """UntrainedError, with every sign found, if ``model`` or its head is as it was initialised.

    ``meta``: that of the checkpoint it was loaded from.
    """
    if signs := untrained_signs(model, meta or {}):
        raise UntrainedError(
            f"'{source}' was never trained: {'; '.join(signs)}. Its figures would describe chance. Train it first "
            '(tools/train.py), or name the checkpoint of a later epoch.'
        )


def untrained_signs(model: nn.Module, meta: Mapping[str, Any]) -> list[str]:
    """Signs that no step was made: the position in the run, batch norms, a queue, cluster labels, a classifier."""
    signs = []
    if meta.get('iter') == 0 or meta.get('epoch') == 0:
        signs.append(f'it was written at epoch {meta.get("epoch")}, step {meta.get("iter")}')
    counters = [p.num_batches_tracked for p in model.modules() if getattr(p, 'num_batches_tracked', None) is not None]
    if counters and not any(int(counter) for counter in counters):
        signs.append(f'none of its {len(counters)} batch norms has seen a batch')
    for name, part in model.named_modules():
        if all(hasattr(part, word) for word in ('rows', 'stored', 'enabled')):
            if bool(part.enabled) and not int(part.stored):
                signs.append(f"the queue '{name}' holds its start values")
        elif hasattr(part, 'made') and hasattr(part, 'labels') and not part.made:
            signs.append(f"no image has a cluster label in '{name}'")
        elif name == 'head' and isinstance(part, nn.Linear) and part.bias is not None and not part.bias.any():
            sd = float(part.weight.detach().std())  # a step of any optimizer moves some bias
            if sd == 0 or abs(sd / 0.01 - 1) < 0.2:
                signs.append("the classifier 'head' holds its initial values (bias 0, weights of sd 0.01)")
    return signs
