"""Weighted nearest neighbours at four k: time, peak memory, accuracy.

python benchmarks/knn.py --rounds 3 --json benchmarks/results/knn.json     # 50 000 x 10 000, about 10 minutes on a CPU
"""

from __future__ import annotations

from functools import cache

import reference
import torch
from harness import Case, Maker, Step, arguments, measure
from torch import Tensor

from mmkernel.evaluation import weighted_knn

NEIGHBOURS, TEMPERATURE = (10, 20, 100, 200), 0.07


@cache
def features(
    train: int, test: int, d: int, classes: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Clusters so close that about one image in five is misplaced: rows and labels of both splits."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, d, generator=generator)
    labels = [torch.randint(classes, (n,), generator=generator) for n in (train, test)]
    noise = 1.9 * (d / 128) ** 0.5
    rows = [centres[y] + noise * torch.randn(len(y), d, generator=generator) for y in labels]
    return tuple(x.to(device) for pair in zip(rows, labels, strict=True) for x in pair)


def textbook(k: tuple[int, ...], size: tuple[int, ...]) -> Maker:
    def make(device: torch.device) -> Step:
        return lambda: {n: reference.knn(*features(*size, device), n, TEMPERATURE, size[-1]) for n in k}

    return make


def ours(k: tuple[int, ...], size: tuple[int, ...]) -> Maker:
    def make(device: torch.device) -> Step:
        def step() -> dict[int, float]:
            found = weighted_knn(*features(*size, device), k, TEMPERATURE, size[-1])
            return {n: result['top1'] for n, result in found.items()}

        return step

    return make


def case(size: tuple[int, ...], k: tuple[int, ...] = NEIGHBOURS, time_goal: float | None = None) -> Case:
    train, test, d, classes = size
    forms = {'textbook': textbook(k, size), 'ours': ours(k, size)}
    return Case(f'kNN {train} x {test}, d={d}, k={",".join(map(str, k))}', forms, time_goal)


def cases(quick: bool = False) -> list[Case]:
    if quick:
        return [case((300, 60, 16, 5), (3, 10))]
    return [case((50_000, 10_000, 512, 1000), time_goal=5.0), case((50_000, 2_000, 2048, 1000))]


def main(argv: list[str] | None = None) -> list[dict]:
    args = arguments(__doc__, argv)
    rows = measure(__file__, cases(args.quick), args)
    for row in rows:
        for form, figures in row['forms'].items():
            print(row['case'], form, {k: f'{top1:.2f} %' for k, top1 in figures['value'].items()})
    return rows


if __name__ == '__main__':
    main()
