"""Features of every image of a source, in its order, for one encoder or for several that are compared."""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from mmkernel import __version__
from mmkernel.datasets import EvaluationDataset, collate_views
from mmkernel.datasets.label_checks import targets_of
from mmkernel.datasets.sources import left_out_text
from mmkernel.distributed import on_first_process
from mmkernel.distributed.shards import own_part
from mmkernel.evaluation.feature_cache import Allocate, files_digest, images_digest, stored
from mmkernel.evaluation.labels import Labels, classes_of
from mmkernel.hashes import tensor_bytes

Progress = Callable[[int, int], None]


def evaluation_dataset(source: Any, transform: Any = None) -> EvaluationDataset:
    """The images of a source or its config; ValueError where it is empty, or where substitutes would spoil targets."""
    if isinstance(source, EvaluationDataset):
        return source
    dataset = EvaluationDataset(source, transform)
    if len(dataset) == 0:
        raise ValueError(f'the source {source} holds no image; look at the evaluation part of the config.')
    if targets_of(dataset.source) is not None and getattr(dataset.source, 'on_corrupt', 'raise') != 'raise':
        raise ValueError(
            'images of several classes are judged by the rows of their targets, which a substitute of a damaged image does '
            "not have: set on_corrupt='raise' in the evaluation part of the config."
        )
    return dataset


def evaluation_loader(
    source: Any, transform: Any = None, batch_size: int = 256, num_workers: int = 2, rows: Sequence[int] | None = None
) -> DataLoader:
    """Batches ``dict(inputs=[(B, C, H, W) uint8], sample_index=(B,), label=(B,))`` of a source or its config, in order.

    ``rows``: these images only, in this order. Never more workers than cores, none for a single batch.
    """
    dataset = evaluation_dataset(source, transform)
    part = dataset if rows is None else Subset(dataset, rows)
    workers = min(num_workers, usable_cores()) if len(part) > batch_size else 0  # one batch is not worth their start
    return DataLoader(part, batch_size=batch_size, num_workers=workers, collate_fn=collate_views)


def usable_cores() -> int:
    """Cores that this process may use: in a container or a batch job fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def extract_features(
    model: nn.Module,
    source: Any,
    transform: Any = None,
    batch_size: int = 256,
    num_workers: int = 2,
    stage: str = 'backbone',
    progress: Progress | None = None,
    cache: str | Path | None = None,
    rows: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """((N, d) float32, (N,) int64 ``Labels``) on the CPU, through ``model.extract``.

    ``rows``: these images only, in this order; ValueError with a cache, which keeps all images, or for no row.
    ``cache``: a folder where they are kept under a hash of the weights, the stage, the transform, the versions and the state
    (name, size, times) of every image file; see ``feature_cache``. Several processes divide the work through it.
    """
    if rows is not None and (cache is not None or len(rows) == 0):
        raise ValueError(f'rows names {len(rows)} images, cache={cache!r}; expected at least one, and no cache.')
    dataset = evaluation_dataset(source, transform)
    classes = classes_of(dataset.source)

    @torch.no_grad()
    def compute(rows: Sequence[int], allocate: Allocate) -> None:
        """Fills one array in place: a list of batches and their concatenation would take the memory twice."""
        done, features = 0, None
        for batch in evaluation_loader(dataset, None, batch_size, num_workers, rows):
            part = model.extract(batch['inputs'][0], stage=stage).float().cpu().numpy()
            if features is None:
                features = allocate('features', (len(rows), part.shape[1]), np.float32)
                labels = allocate('labels', (len(rows),), np.int64)
            features[done : done + len(part)] = part
            labels[done : done + len(part)] = np.asarray(batch['label'])
            done += len(part)
            if progress:
                progress(done, len(rows))

    if cache is None:
        arrays: dict[str, np.ndarray] = {}
        rows = range(len(dataset)) if rows is None else rows
        compute(rows, lambda name, shape, dtype: arrays.setdefault(name, np.empty(shape, dtype)))
        features, labels = torch.from_numpy(arrays['features']), arrays['labels']
    else:
        about = dict(encoder=encoder_digest(model, stage), stage=stage, images=len(dataset), classes=list(classes))
        # as rank 0 sees the files: times differ where each rank has its own disk
        about |= dict(files=on_first_process(lambda: files_digest(dataset.source)), **circumstances())
        features, labels = stored(cache, about | dict(source=images_digest(dataset, source, transform)), compute)
    if text := left_out_text(dataset.source):
        warnings.warn(f'{text} The figures are not those of the whole set.', stacklevel=2)
    return features, Labels(labels, classes)


def circumstances() -> dict[str, str]:
    """Versions of the libraries that features depend on, and the precision of products: part of every key."""
    cast = [f'{kind} {torch.get_autocast_dtype(kind)}' for kind in ('cpu', 'cuda') if torch.is_autocast_enabled(kind)]
    tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    versions = {name: metadata.version(name) for name in ('torch', 'torchvision', 'timm', 'pillow', 'numpy')}
    return {'mmkernel': __version__, **versions, 'precision': f'{" ".join(map(str, tf32))} {", ".join(cast)}'}


def encoder_digest(model: nn.Module, stage: str = 'backbone') -> str:
    """A hash of all that ``model.extract(images, stage)`` depends on: architecture, weights, buffers, normalisation.

    Of a model with a ``backbone``: of that, and of its ``neck`` for that stage; of any other model: of the whole.
    """
    parts = [part for part in (['backbone', 'neck'] if stage == 'neck' else ['backbone']) if hasattr(model, part)]
    modules = [getattr(model, part) for part in parts] or [model]
    preprocessor, digest = getattr(model, 'data_preprocessor', None), hashlib.sha256()
    for module in modules:
        digest.update(repr(module).encode())
        for name, value in sorted({**dict(module.named_buffers()), **module.state_dict()}.items()):
            digest.update(f'{name} {value.dtype} {tuple(value.shape)}'.encode())
            digest.update(tensor_bytes(own_part(value)))
    for name in ('mean', 'std'):  # buffers that no state dict holds
        digest.update(repr(torch.as_tensor(getattr(preprocessor, name, 0)).flatten().tolist()).encode())
    return digest.hexdigest()


class RawPixels(nn.Module):
    """The encoder that any other has to beat: (B, C, H, W) images as plain vectors of grey levels / 255.

    Images larger than 32 x 32 are area-averaged to that (224 x 224 x 3 floats per image would not fit in memory).
    """

    def extract(self, images: Tensor, stage: str = 'pixels') -> Tensor:
        images = images.float() / 255
        size = [min(side, 32) for side in images.shape[-2:]]
        return (images if size == list(images.shape[-2:]) else F.adaptive_avg_pool2d(images, size)).flatten(1)


def raw_pixels(source: Any, transform: Any = None, **settings: Any) -> tuple[Tensor, Tensor]:
    """``extract_features`` of :class:`RawPixels`; ``settings``: batch_size, num_workers, progress, cache."""
    return extract_features(RawPixels(), source, transform, stage='pixels', **settings)


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
    """One FeatureSet per row of the table, computed one at a time: raw pixels, then ``encoders`` in their order."""
    part = cfg.get('evaluation')
    if part is None:
        raise KeyError("the config has no 'evaluation' part; expected evaluation=dict(train=<source>, test=<source>).")
    settings = {key: part[key] for key in ('transform', 'batch_size', 'num_workers') if key in part}
    settings['cache'] = cache
    for name, model in {**({'raw pixels': RawPixels()} if raw else {}), **encoders}.items():
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
    """One row ``dict(name=, width=, scores=score(train_x, train_y, test_x, test_y))`` per encoder, raw pixels first."""
    return [
        dict(name=name, width=data[0].shape[1], scores=score(*data))
        for name, *data in feature_sets(cfg, encoders, raw, **kwargs)
    ]
