"""Weighted k-nearest-neighbour classification of cosine-normalised features: accuracies, votes and predictions."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmkernel.evaluation.inputs import as_labels, as_pair, as_split
from mmkernel.evaluation.metrics import label_ranks, percent
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
    _check_temperature(temperature)
    similarity, index = nearest(test_x, train_x, max(wanted.values()), device, **search)
    test_y = test_y.to(index.device)
    ranks = {count: torch.empty(len(test_x), dtype=torch.long) for count in wanted.values()}
    for rows, count, votes in _votes(similarity, index, train_y, classes, temperature, ranks):
        ranks[count][rows] = label_ranks(votes.masked_fill(votes == 0, -torch.inf), test_y[rows]).cpu()
    return {
        name: dict(top1=percent(ranks[n] < 1), top5=percent(ranks[n] < min(5, n)), neighbours=n)
        for name, n in wanted.items()
    }


class KNNPrediction(NamedTuple):
    """Of M images: what the neighbours voted, and for which class the most."""

    votes: Tensor  # (M, C) exp((cos(x, x_i) - cos(x, x_1)) / T) summed over the neighbours of each class
    classes: Tensor  # (M,) of the most votes; of equal ones the lowest number


def knn_predict(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    k: int = 20,
    temperature: float = 0.07,
    num_classes: int | None = None,
    device: str | torch.device | None = None,
    **search: Any,
) -> KNNPrediction:
    """The votes and predictions that ``weighted_knn`` scores, for images whose labels nobody needs to know.

    Votes are in units of the nearest neighbour's, which changes no ranking: divided by their sum they are the share of
    each class. Both tensors lie on ``device``.
    """
    train_x, test_x = as_pair(train_x, test_x)
    train_y = as_labels(train_y, len(train_x), 'train labels')
    (count,) = _neighbour_counts([k], len(train_x)).values()
    _check_temperature(temperature)
    classes = max(num_classes or 0, int(train_y.max()) + 1)
    found = nearest(test_x, train_x, count, device, **search)
    votes = torch.cat([votes for _, _, votes in _votes(*found, train_y, classes, temperature, [count])])
    return KNNPrediction(votes, votes.argmax(1))


def _votes(
    similarity: Tensor, index: Tensor, train_y: Tensor, classes: int, temperature: float, counts: Sequence[int]
) -> Iterator[tuple[Tensor, int, Tensor]]:
    """(rows, k, votes (b, C) of the k nearest) for some rows at a time, and for them every k of ``counts``, rising.

    The votes of one k become those of the next: use them before going on.
    """
    labels = train_y.to(index.device)
    for rows in torch.arange(len(index)).split(_VOTERS):
        # The best similarity is taken off: it changes no ranking, and exp cannot overflow at any temperature.
        weight = ((similarity[rows] - similarity[rows, :1]) / temperature).exp()  # (b, k_max)
        weight.clamp_min_(torch.finfo(weight.dtype).tiny)  # a vote is a vote, however small
        voted = labels[index[rows]]  # (b, k_max)
        votes, counted = weight.new_zeros(len(rows), classes), 0
        for count in sorted(counts):
            votes.scatter_add_(1, voted[:, counted:count], weight[:, counted:count])
            counted = count
            yield rows, count, votes


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f'temperature={temperature}; expected a positive number (0.07 in the published protocol).')


def _neighbour_counts(k: int | Sequence[int], bank: int) -> dict[int, int]:
    """{k asked for: k that the bank can give}."""
    wanted = np.atleast_1d(np.asarray(k)).tolist()
    if not wanted or any(not isinstance(each, int) or each < 1 for each in wanted):
        raise ValueError(f'k={k}; expected one or more whole numbers of neighbours >= 1.')
    if max(wanted) > bank:
        warnings.warn(f'k={max(wanted)} exceeds the {bank} images of the bank; all {bank} vote instead.', stacklevel=3)
    return {each: min(each, bank) for each in wanted}
