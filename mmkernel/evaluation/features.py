"""Features of every image of a source, in its order, for one encoder or for several that are compared."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from mmkernel.datasets.sources import left_out_text, targets_of
from mmkernel.distributed import on_first_process
from mmkernel.evaluation.feature_cache import Allocate, stored
from mmkernel.evaluation.feature_keys import circumstances, encoder_digest, files_digest, images_digest
from mmkernel.evaluation.labels import Labels, classes_of
from mmkernel.registry import DATASETS

Progress = Callable[[int, int], None]
RAW = 'raw pixels'


def evaluation_loader(
    source: Any, transform: Any = None, batch_size: int = 256, num_workers: int = 2, rows: range | None = None
) -> DataLoader:
    """Batches ``dict(inputs=[(B, C, H, W) uint8], sample_index=(B,), label=(B,))`` of a source or its config, in order.

    ``rows``: these images only. Never more workers than cores, none for a single batch.
    """
    return _loader(_dataset(source, transform), batch_size, num_workers, rows)


def usable_cores() -> int:
    """Those that this process may use, which in a container or a batch job are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _dataset(source: Any, transform: Any) -> Any:
    dataset = DATASETS.build(dict(type='EvaluationDataset', source=source, transform=transform))
    if len(dataset) == 0:
        raise ValueError(f'the source {source} holds no image; look at the evaluation part of the config.')
    if targets_of(dataset.source) is not None and getattr(dataset.source, 'on_corrupt', 'raise') != 'raise':
        raise ValueError(
            'images of several classes are judged by the rows of their targets, which a substitute of a damaged image does '
            "not have: set on_corrupt='raise' in the evaluation part of the config, and fetch or remove what it names."
        )
    return dataset


def _loader(dataset: Any, batch_size: int, num_workers: int, rows: range | None = None) -> DataLoader:
    part = dataset if rows is None or len(rows) == len(dataset) else Subset(dataset, rows)
    workers = min(num_workers, usable_cores()) if len(part) > batch_size else 0  # processes for one batch only cost
    return DataLoader(part, batch_size=batch_size, num_workers=workers, shuffle=False)


def extract_features(
    model: nn.Module,
    source: Any,
    transform: Any = None,
    batch_size: int = 256,
    num_workers: int = 2,
    stage: str = 'backbone',
    progress: Progress | None = None,
    cache: str | Path | None = None,
) -> tuple[Tensor, Tensor]:
    """((N, d) float32, (N,) int64 ``Labels``) on the CPU, through ``model.extract`` and nothing else.

    ``cache``: a folder where they are kept under a hash of the weights, the stage, the transform, the versions and the state
    (name, size, times) of every image file, and read from memory-mapped after their checksums were compared; see
    ``feature_keys.files_digest`` for what is noticed. With several processes a cache divides the work among them.
    """
    dataset = _dataset(source, transform)
    classes = classes_of(dataset.source)

    def compute(rows: range, allocate: Allocate) -> None:
        _collect(_loader(dataset, batch_size, num_workers, rows), model, stage, progress, allocate)

    if cache is None:
        arrays: dict[str, np.ndarray] = {}
        compute(range(len(dataset)), lambda name, shape, dtype: arrays.setdefault(name, np.empty(shape, dtype)))
        features, labels = torch.from_numpy(arrays['features']), arrays['labels']
    else:
        about = dict(encoder=encoder_digest(model, stage), stage=stage)
        about |= dict(source=images_digest(dataset, source, transform), images=len(dataset))
        # those that rank 0 sees: on disks of their own, times differ
        files = on_first_process(lambda: files_digest(dataset.source))
        about |= dict(files=files, classes=list(classes), **circumstances())
        features, labels = stored(cache, about, compute)
    if text := left_out_text(dataset.source):
        warnings.warn(f'{text} The figures are not those of the whole set.', stacklevel=2)
    return features, Labels(labels, classes)


class RawPixels(nn.Module):
    """An encoder that everyone has to beat: (B, C, H, W) images as plain vectors of grey levels / 255.

    Images larger than ``max_side`` are area-averaged to it (224 x 224 x 3 floats per image would not fit in memory).
    """

    def __init__(self, max_side: int = 32) -> None:
        super().__init__()
        self.max_side = max_side

    def extract(self, images: Tensor, stage: str = 'pixels') -> Tensor:
        images = images.float() / 255
        size = [min(side, self.max_side) for side in images.shape[-2:]]
        return (images if size == list(images.shape[-2:]) else F.adaptive_avg_pool2d(images, size)).flatten(1)

    def extra_repr(self) -> str:
        return f'max_side={self.max_side}'


def raw_pixels(source: Any, transform: Any = None, max_side: int = 32, **settings: Any) -> tuple[Tensor, Tensor]:
    """``extract_features`` of :class:`RawPixels`; ``settings``: batch_size, num_workers, progress, cache."""
    return extract_features(RawPixels(max_side), source, transform, stage='pixels', **settings)


@torch.no_grad()
def _collect(loader: DataLoader, model: nn.Module, stage: str, progress: Progress | None, allocate: Allocate) -> None:
    """One array filled in place: a list of batches and their concatenation would hold everything twice."""
    total, done, features = len(loader.dataset), 0, None
    for batch in loader:
        rows = model.extract(batch['inputs'][0], stage=stage).float().cpu().numpy()
        if features is None:
            features = allocate('features', (total, rows.shape[1]), np.float32)
            labels = allocate('labels', (total,), np.int64)
        features[done : done + len(rows)] = rows
        labels[done : done + len(rows)] = np.asarray(batch['label'])
        done += len(rows)
        if progress:
            progress(done, total)


class FeatureSet(NamedTuple):
    """Features and labels of the training and the test source under one encoder."""

    name: str
    train_x: Tensor  # (N, d)
    train_y: Tensor  # (N,)
    test_x: Tensor  # (M, d)
    test_y: Tensor  # (M,)


def feature_sets(
    cfg: Any,
    encoders: Mapping[str, nn.Module],
    raw: bool = True,
    stage: str = 'backbone',
    progress: Callable[[str, int, int], None] | None = None,
    cache: str | Path | None = None,
) -> Iterator[FeatureSet]:
    """One FeatureSet per row of the table: raw pixels, then ``encoders`` in their order, made when asked for.

    ``cache``: a folder where features are kept between calls; see ``extract_features``.
    """
    part = cfg.get('evaluation')
    if part is None:
        raise KeyError(
            "the config has no 'evaluation' part; expected evaluation=dict(train=<source>, test=<source>, "
            "transform=dict(type='CenterView', ...))."
        )
    settings = {key: part[key] for key in ('transform', 'batch_size', 'num_workers') if key in part}
    settings['cache'] = cache
    for name, model in {**({RAW: RawPixels()} if raw else {}), **encoders}.items():
        settings['stage'] = 'pixels' if isinstance(model, RawPixels) else stage
        settings['progress'] = (lambda done, total, name=name: progress(name, done, total)) if progress else None
        yield FeatureSet(
            name,
            *extract_features(model, part['train'], **settings),
            *extract_features(model, part['test'], **settings),
        )


def evaluate(
    cfg: Any, encoders: Mapping[str, nn.Module], score: Callable[..., dict], raw: bool = True, **kwargs: Any
) -> list[dict]:
    """One row ``dict(name=, width=, scores=score(train_x, train_y, test_x, test_y))`` per encoder, raw pixels first.

    ``score``: :func:`weighted_knn`, :func:`linear_probe`, :func:`few_label_scores`, or any function like them.
    """
    return [
        dict(name=name, width=data[0].shape[1], scores=score(*data))
        for name, *data in feature_sets(cfg, encoders, raw, **kwargs)
    ]
