"""Weighted k-nearest-neighbour classification by cosine: the search, and accuracies, votes and predictions."""

import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmkernel.checks import check_numbers
from mmkernel.evaluation.inputs import as_labels, as_pair, as_split, unit_rows
from mmkernel.evaluation.metrics import label_ranks, percent

_VOTERS = 512  # test images whose votes are counted at a time


@torch.no_grad()
def nearest(
    queries: Tensor,
    bank: Tensor,
    k: int,
    device: str | torch.device | None = None,
    query_chunk: int = 512,
    bank_chunk: int = 65536,
) -> tuple[Tensor, Tensor]:
    """(cosine similarities, bank rows) of the k nearest, best first; both (n, k), on ``device``; k is at most the bank's rows.

    The bank is walked once, with a running list of the best k per query. Scores held at a time: 512 x 65536, 134 MB in
    float32; on a CPU faiss multiplies and selects in one pass.
    """
    check_numbers(k=k, whole=True)
    queries, bank = as_pair(queries, bank, ('queries', 'rows of the bank'))
    device = torch.device(device) if device is not None else bank.device
    k = min(int(k), len(bank))
    unit = unit_rows(queries.to(device))  # (n, d)
    value = unit.new_full((len(queries), k), -torch.inf)
    index = torch.zeros(len(queries), k, dtype=torch.long, device=device)
    on_cpu = device.type == 'cpu' and unit.dtype == torch.float32
    search, step = (_search_faiss, len(queries)) if on_cpu else (_search, query_chunk)
    for start in range(0, len(bank), bank_chunk):
        chunk = unit_rows(bank[start : start + bank_chunk].to(device))  # (m, d)
        for rows in (slice(i, i + step) for i in range(0, len(queries), step)):
            score, found = search(unit[rows], chunk, min(k, len(chunk)))
            if start == 0 and score.shape[1] == k:
                value[rows], index[rows] = score, found
                continue
            best = torch.cat([value[rows], score], dim=1).topk(k, dim=1)
            value[rows] = best.values
            index[rows] = torch.cat([index[rows], found + start], dim=1).gather(1, best.indices)
    return value, index


def _search(queries: Tensor, chunk: Tensor, k: int) -> tuple[Tensor, Tensor]:
    return (queries @ chunk.T).topk(k, dim=1)


def _search_faiss(queries: Tensor, chunk: Tensor, k: int) -> tuple[Tensor, Tensor]:
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    score, found = faiss.knn(queries.numpy(), chunk.numpy(), k, metric=faiss.METRIC_INNER_PRODUCT)
    return torch.from_numpy(score), torch.from_numpy(found)


def weighted_knn(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    k: int | Sequence[int] = (10, 20, 100, 200),
    temperature: float = 0.07,
    num_classes: int | None = None,
    device: str | torch.device | None = None,
) -> dict[int, dict[str, float]]:
    """score(c) = sum over the k nearest i with y_i = c of exp(cos(x, x_i) / T); percent of test images ranked right.

    Wu et al., CVPR 2018, in the form of Caron et al. (DINO), ICCV 2021, and Zheng et al., ICLR 2023, table 1.
    Every k is answered from one search for the largest. Features (N, d) are raw: they are normalised here, and may lie on
    the CPU while ``device`` is a GPU. Top-5 counts the first min(5, k) ranks, so for k = 1 it equals top-1. A class without
    a vote has no rank. Of equal votes (rare) the true class comes last, so the numbering of classes does not matter; in the
    published code the lowest number wins. A k larger than the bank means the whole bank, with a warning.

    Returns ``{k: dict(top1=, top5=, neighbours=)}``, where ``neighbours`` is the k that was really used.
    """
    check_numbers(k=k, whole=True)
    train_x, train_y, test_x, test_y, classes = as_split(train_x, train_y, test_x, test_y, num_classes)
    wanted = {int(each): min(int(each), len(train_x)) for each in np.atleast_1d(k)}
    ranks = {count: torch.empty(len(test_x), dtype=torch.long) for count in wanted.values()}
    for rows, count, votes in _votes(train_x, train_y, test_x, [*wanted], classes, temperature, device):
        label = test_y[rows].to(votes.device)
        ranks[count][rows] = label_ranks(votes.masked_fill(votes == 0, -torch.inf), label).cpu()
    return {
        name: dict(top1=percent(ranks[n] < 1), top5=percent(ranks[n] < min(5, n)), neighbours=n)
        for name, n in wanted.items()
    }


class KNNPrediction(NamedTuple):
    """Votes of the neighbours of M images, and the class with the most."""

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
) -> KNNPrediction:
    """The votes and predictions that ``weighted_knn`` scores, for images without labels.

    Votes are in units of the nearest neighbour's, which changes no ranking: divided by their sum they are the share of
    each class. Both tensors lie on ``device``.
    """
    check_numbers(k=k, whole=True)
    train_x, test_x = as_pair(train_x, test_x)
    train_y = as_labels(train_y, len(train_x), 'train labels')
    classes = max(num_classes or 0, int(train_y.max()) + 1)
    parts = _votes(train_x, train_y, test_x, [int(k)], classes, temperature, device)
    votes = torch.cat([votes for _, _, votes in parts])
    return KNNPrediction(votes, votes.argmax(1))


def _votes(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    counts: list[int],
    classes: int,
    temperature: float,
    device: str | torch.device | None,
) -> Iterator[tuple[Tensor, int, Tensor]]:
    """(rows, k, votes (b, C) of the k nearest), block by block of test rows, and in each block for rising k of ``counts``.

    The tensor of votes is reused for the next k: read it before the next step.
    """
    check_numbers(temperature=temperature)
    bank = len(train_x)
    if max(counts) > bank:
        warnings.warn(f'k={max(counts)} exceeds the {bank} images of the bank; all {bank} vote instead.', stacklevel=3)
    similarity, index = nearest(test_x, train_x, max(counts), device)
    labels = train_y.to(index.device)
    for rows in torch.arange(len(index)).split(_VOTERS):
        # minus the best similarity: the ranking stays, and exp cannot overflow at any temperature
        weight = ((similarity[rows] - similarity[rows, :1]) / temperature).exp()  # (b, k_max)
        weight.clamp_min_(torch.finfo(weight.dtype).tiny)  # no vote underflows to 0
        voted = labels[index[rows]]  # (b, k_max)
        votes, counted = weight.new_zeros(len(rows), classes), 0
        for count in sorted({min(count, bank) for count in counts}):
            votes.scatter_add_(1, voted[:, counted:count], weight[:, counted:count])
            counted = count
            yield rows, count, votes
