"""Features of every image of a source, in the order of the source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmkernel.registry import DATASETS

Progress = Callable[[int, int], None]


def evaluation_loader(source: Any, transform: Any = None, batch_size: int = 256, num_workers: int = 2) -> DataLoader:
    """Batches ``dict(inputs=(B, C, H, W) uint8, sample_index=(B,), label=(B,))`` of a source or its config, in order."""
    dataset = DATASETS.build(dict(type='EvaluationDataset', source=source, transform=transform))
    if len(dataset) == 0:
        raise ValueError(f'the source {source} holds no image; look at the evaluation part of the config.')
    workers = num_workers if len(dataset) > batch_size else 0  # starting processes for one batch only costs
    return DataLoader(dataset, batch_size=batch_size, num_workers=workers, shuffle=False)


def extract_features(
    model: nn.Module,
    source: Any,
    transform: Any = None,
    batch_size: int = 256,
    num_workers: int = 2,
    stage: str = 'backbone',
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """((N, d) float32, (N,) int64 labels) on the CPU, through ``model.extract`` and nothing else."""
    loader = evaluation_loader(source, transform, batch_size, num_workers)
    return _collect(loader, lambda images: model.extract(images, stage=stage), progress)


def raw_pixels(
    source: Any,
    transform: Any = None,
    batch_size: int = 256,
    num_workers: int = 2,
    max_side: int = 32,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """The same images as plain vectors of grey levels / 255: what every encoder has to beat.

    Images larger than ``max_side`` are area-averaged to it (224 x 224 x 3 floats per image would not fit in memory).
    """

    def flat(images: Tensor) -> Tensor:
        images = images.float() / 255
        size = [min(side, max_side) for side in images.shape[-2:]]
        if size != list(images.shape[-2:]):
            images = F.adaptive_avg_pool2d(images, size)
        return images.flatten(1)

    return _collect(evaluation_loader(source, transform, batch_size, num_workers), flat, progress)


@torch.no_grad()
def _collect(
    loader: DataLoader, features_of: Callable[[Tensor], Tensor], progress: Progress | None
) -> tuple[Tensor, Tensor]:
    """One array filled in place: a list of batches and their concatenation would hold everything twice."""
    total, done = len(loader.dataset), 0
    features, labels = None, torch.full((total,), -1, dtype=torch.long)
    for batch in loader:
        rows = features_of(batch['inputs'])
        if features is None:
            features = torch.empty(total, rows.shape[1])
        features[done : done + len(rows)] = rows
        labels[done : done + len(rows)] = torch.as_tensor(batch['label'])
        done += len(rows)
        if progress:
            progress(done, total)
    return features, labels
