"""Weighted k-nearest-neighbour classification of cosine-normalised features."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkernel.evaluation.inputs import as_features, as_split


def weighted_knn(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    k: int | Sequence[int] = (10, 20, 100, 200),
    temperature: float = 0.07,
    num_classes: int | None = None,
    device: str | torch.device | None = None,
    query_chunk: int = 512,
    bank_chunk: int = 65536,
) -> dict[int, dict[str, float]]:
    """score(c) = sum over the k nearest i with y_i = c of exp(cos(x, x_i) / T); percent of test images ranked right.

    Wu et al., CVPR 2018, in the form of Caron et al. (DINO), ICCV 2021, and Zheng et al., ICLR 2023, table 1.
    Every k is answered from one search for the largest. Features (N, d) are raw: they are normalised here.
    Top-5 counts the first min(5, k) ranks, so for k = 1 it equals top-1; classes without a vote rank last, in the order
    that ``sort`` leaves them, as in the published code. A k larger than the bank means the whole bank, with a warning.
    The search holds ``query_chunk x bank_chunk`` scores; features may lie on the CPU while ``device`` is a GPU.

    Returns ``{k: dict(top1=, top5=, neighbours=)}``, where ``neighbours`` is the k that was really used.
    """
    train_x, train_y, test_x, test_y, classes = as_split(train_x, train_y, test_x, test_y, num_classes)
    wanted = _neighbour_counts(k, len(train_x))
    if not temperature > 0:
        raise ValueError(f'temperature={temperature}; expected a positive number (0.07 in the published protocol).')
    similarity, index = nearest(test_x, train_x, max(wanted.values()), device, query_chunk, bank_chunk)
    labels, test_y = train_y.to(index.device), test_y.to(index.device)

    correct = {k: torch.zeros(2, dtype=torch.long) for k in wanted}
    for rows in torch.arange(len(test_x)).split(query_chunk):
        # The best similarity is taken off: it changes no ranking, and exp cannot overflow at any temperature.
        weight = ((similarity[rows] - similarity[rows, :1]) / temperature).exp()  # (b, k_max)
        voted = labels[index[rows]]  # (b, k_max)
        for name, count in wanted.items():
            votes = weight.new_zeros(len(rows), classes)
            votes.scatter_add_(1, voted[:, :count], weight[:, :count])
            ranked = votes.sort(dim=1, descending=True).indices[:, : min(5, count)]
            hit = ranked == test_y[rows, None]
            correct[name] += torch.stack([hit[:, 0].sum(), hit.sum()]).cpu()
    return {
        name: dict(
            top1=100 * int(correct[name][0]) / len(test_x), top5=100 * int(correct[name][1]) / len(test_x), neighbours=n
        )
        for name, n in wanted.items()
    }


def _neighbour_counts(k: int | Sequence[int], bank: int) -> dict[int, int]:
    """{k asked for: k that the bank can give}."""
    wanted = [k] if isinstance(k, int) else [int(each) for each in k]
    if not wanted or min(wanted) < 1:
        raise ValueError(f'k={k}; expected one or more numbers of neighbours >= 1.')
    if max(wanted) > bank:
        warnings.warn(f'k={max(wanted)} exceeds the {bank} images of the bank; all {bank} vote instead.', stacklevel=3)
    return {each: min(each, bank) for each in wanted}


@torch.no_grad()
def nearest(
    queries: Tensor,
    bank: Tensor,
    k: int,
    device: str | torch.device | None = None,
    query_chunk: int = 512,
    bank_chunk: int = 65536,
) -> tuple[Tensor, Tensor]:
    """(cosine similarities, bank rows) of the k nearest, best first; both (n, k), on ``device``.

    The bank is walked once, each chunk normalised and moved once, with a running list of the best k per query.
    """
    queries, bank = as_features(queries, 'queries'), as_features(bank, 'bank')
    device = torch.device(device) if device is not None else bank.device
    unit = F.normalize(queries.to(device), dim=1)  # (n, d)
    value = unit.new_full((len(queries), k), -torch.inf)
    index = torch.zeros(len(queries), k, dtype=torch.long, device=device)
    for start in range(0, len(bank), bank_chunk):
        chunk = F.normalize(bank[start : start + bank_chunk].to(device), dim=1)  # (m, d)
        for rows in torch.arange(len(queries), device=device).split(query_chunk):
            score, found = (unit[rows] @ chunk.T).topk(min(k, len(chunk)), dim=1)  # (b, <= k)
            best = torch.cat([value[rows], score], dim=1).topk(k, dim=1)
            value[rows] = best.values
            index[rows] = torch.cat([index[rows], found + start], dim=1).gather(1, best.indices)
    return value, index
