"""Weighted k-nearest-neighbour classification of cosine-normalised features."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmkernel.evaluation.inputs import as_split
from mmkernel.evaluation.judges import places
from mmkernel.evaluation.neighbours import nearest

_VOTERS = 512  # test images whose votes are counted at a time


def weighted_knn(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    k: int | Sequence[int] = (10, 20, 100, 200),
    temperature: float = 0.07,
    num_classes: int | None = None,
    device: str | torch.device | None = None,
    **search: Any,
) -> dict[int, dict[str, float]]:
    """score(c) = sum over the k nearest i with y_i = c of exp(cos(x, x_i) / T); percent of test images ranked right.

    Wu et al., CVPR 2018, in the form of Caron et al. (DINO), ICCV 2021, and Zheng et al., ICLR 2023, table 1.
    Every k is answered from one search for the largest. Features (N, d) are raw: they are normalised here.
    Top-5 counts the first min(5, k) places, so for k = 1 it equals top-1. A class without a vote has no place, and of equal
    votes (none, mostly) the true class comes last: numbers of classes decide nothing, other than in the published code,
    where the lowest wins. A k larger than the bank means the whole bank, with a warning.
    Features may lie on the CPU while ``device`` is a GPU; ``search``: chunks, backend, precision, rerank of ``nearest``.

    Returns ``{k: dict(top1=, top5=, neighbours=)}``, where ``neighbours`` is the k that was really used.
    """
    train_x, train_y, test_x, test_y, classes = as_split(train_x, train_y, test_x, test_y, num_classes)
    wanted = _neighbour_counts(k, len(train_x))
    if not temperature > 0:
        raise ValueError(f'temperature={temperature}; expected a positive number (0.07 in the published protocol).')
    similarity, index = nearest(test_x, train_x, max(wanted.values()), device, **search)
    labels, test_y = train_y.to(index.device), test_y.to(index.device)

    correct = {name: torch.zeros(2, dtype=torch.long) for name in wanted}
    for rows in torch.arange(len(test_x)).split(_VOTERS):
        # The best similarity is taken off: it changes no ranking, and exp cannot overflow at any temperature.
        weight = ((similarity[rows] - similarity[rows, :1]) / temperature).exp()  # (b, k_max)
        weight.clamp_min_(torch.finfo(weight.dtype).tiny)  # a vote is a vote, however small
        voted = labels[index[rows]]  # (b, k_max)
        votes, counted = weight.new_zeros(len(rows), classes), 0
        for name, count in sorted(wanted.items()):
            votes.scatter_add_(1, voted[:, counted:count], weight[:, counted:count])
            place = places(votes.masked_fill(votes == 0, -torch.inf), test_y[rows])
            correct[name] += torch.stack([(place < 1).sum(), (place < min(5, count)).sum()]).cpu()
            counted = count
    return {
        name: dict(
            top1=100 * int(correct[name][0]) / len(test_x), top5=100 * int(correct[name][1]) / len(test_x), neighbours=n
        )
        for name, n in wanted.items()
    }


def _neighbour_counts(k: int | Sequence[int], bank: int) -> dict[int, int]:
    """{k asked for: k that the bank can give}."""
    wanted = np.atleast_1d(np.asarray(k)).tolist()
    if not wanted or any(not isinstance(each, int) or each < 1 for each in wanted):
        raise ValueError(f'k={k}; expected one or more whole numbers of neighbours >= 1.')
    if max(wanted) > bank:
        warnings.warn(f'k={max(wanted)} exceeds the {bank} images of the bank; all {bank} vote instead.', stacklevel=3)
    return {each: min(each, bank) for each in wanted}
