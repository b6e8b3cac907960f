"""Features and embeddings of a sample of images, and embeddings of two views of each: computed, saved and loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from mmkernel.datasets import EvaluationDataset, PatchView, ViewDataset
from mmkernel.evaluation.features import encoder_digest, evaluation_loader
from mmkernel.evaluation.labels import Labels, classes_of
from mmkernel.limits import DAMAGED, LimitError, check_npz
from mmkernel.registry import DATASETS
from mmkernel.writing import replacing, set_aside, writable


class FeatureMismatchError(RuntimeError):
    """Saved embeddings that were made by other weights."""


@dataclass
class Cloud:
    """N images under one encoder."""

    h: Tensor  # (N, d) of the backbone
    z: Tensor  # (N, q) of the neck, raw
    labels: Labels  # (N,) -1 where there is none
    index: Tensor  # (N,) numbers of the images in their source
    views: tuple[Tensor, Tensor] | None  # (N, q) each: embeddings of two augmentations; None for patches
    encoder: str  # digest of the weights that made all this


def sample_source(cfg: Any) -> Any:
    """The test images of a config, or its training images if it has none."""
    part = cfg.get('evaluation') or {}
    return DATASETS.build(part['test']) if 'test' in part else training_source(cfg)


def training_source(cfg: Any) -> Any:
    """The images that a config trains on, without views; ValueError for a data set that has no source."""
    dataset = cfg.train_dataloader.dataset
    if 'source' not in dataset:
        kind = dataset.get('type')
        raise ValueError(
            f'{kind} has no source, whose images could be looked at: give evaluation.test, or use a ViewDataset.'
        )
    return DATASETS.build(dataset.source)


def sample_cloud(model: nn.Module, cfg: Any, images: int = 1000, source: Any = None) -> Cloud:
    """At most ``images`` of the evaluation images, evenly spaced, and two augmentations of each as in training.

    The views are those of epochs 0 and 1. Without an evaluation part the first augmentation stands for the image.
    """
    if not hasattr(model, 'extract') or getattr(model, 'neck', None) is None:
        raise ValueError(f'{type(model).__name__} has no embeddings: expected a model with a neck: a JointEmbedding.')
    if images < 2:
        raise ValueError(
            f'images={images}: one embedding is not a cloud; expected at least 2, and better some hundreds.'
        )

    def extract(batches: list[Tensor], stage: str) -> Tensor:
        return torch.cat([model.extract(images, stage).float().cpu() for images in batches])

    source = sample_source(cfg) if source is None else source
    index = torch.linspace(0, len(source) - 1, min(images, len(source))).round().long().unique()
    part = cfg.get('evaluation') or {}
    size = min(part.get('batch_size', 256), 256)
    position, augmented = augmentations(cfg, source)
    views = None
    if position is not None:
        seen = [DataLoader(Subset(augmented, [(e, i) for i in index.tolist()]), size) for e in (0, 1)]
        seen = [[batch['inputs'][position] for batch in loader] for loader in seen]
        views = tuple(extract(view, 'neck') for view in seen)
    if 'test' in part:
        loader = evaluation_loader(EvaluationDataset(source, part.get('transform')), None, size, 0, index.tolist())
        whole = [batch['inputs'][0] for batch in loader]
    elif position is None:
        raise KeyError("the config has no 'evaluation' part, and its training views are patches of images only.")
    else:
        whole = seen[0]
    labels = Labels([source.label(i) for i in index.tolist()], classes_of(source))
    h, z = extract(whole, 'backbone'), extract(whole, 'neck')
    return Cloud(h, z, labels, index, views, encoder_digest(model, 'neck'))


def augmentations(cfg: Any, source: Any) -> tuple[int | None, ViewDataset | None]:
    """The training views of ``source``, and the position among them of the first that shows a whole image."""
    loader = cfg.get('train_dataloader')
    dataset = None if loader is None else DATASETS.build({**loader['dataset'], 'source': source})
    if not isinstance(dataset, ViewDataset):
        return None, None
    position = 0
    for view in dataset.views.values():
        if not isinstance(view, PatchView):
            return position, dataset
        position += view.count
    return None, dataset


def save_cloud(cloud: Cloud, path: str | Path) -> Path:
    """One npz file of arrays; an earlier file at ``path`` is kept as NAME.old."""
    path = writable(path)
    if path.exists():
        set_aside(path)
    arrays = {name: getattr(cloud, name) for name in ('h', 'z', 'labels', 'index')}
    arrays |= dict(zip(('first', 'second'), cloud.views or (), strict=False))
    with replacing(path) as partial, partial.open('wb') as file:
        np.savez(file, **arrays, encoder=cloud.encoder, classes=np.array(cloud.labels.classes, str))
    return path


def load_cloud(path: str | Path, model: nn.Module, images: int | None = None) -> Cloud:
    """A cloud that ``save_cloud`` wrote, of a source of so many ``images``.

    FeatureMismatchError unless it was made by the weights of ``model``; ValueError for any other file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there are no saved embeddings '{path}'; --save-embeddings makes such a file.")
    try:
        check_npz(path)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        encoder, given = str(arrays.pop('encoder')), encoder_digest(model, 'neck')
        tensors = {name: torch.from_numpy(arrays.pop(name)) for name in ('h', 'z', 'labels', 'index')}
        views = tuple(torch.from_numpy(arrays[name]) for name in ('first', 'second') if name in arrays) or None
        _check_cloud(**tensors, views=views, images=images)
        tensors['labels'] = Labels(tensors['labels'], arrays.pop('classes', np.array([], str)).tolist())
    except LimitError:
        raise
    except KeyError as error:
        raise ValueError(f"'{path}' is not a saved cloud of embeddings: it lacks {error}.") from error
    except DAMAGED as error:
        raise ValueError(f"'{path}' is not a saved cloud of embeddings, or it is damaged: make it again.") from error
    if encoder != given:
        raise FeatureMismatchError(
            f"The embeddings in '{path}' come from other weights ({encoder[:12]}) than the checkpoint named "
            f'({given[:12]}). Name the checkpoint they were made with, or leave the file out to compute them again.'
        )
    return Cloud(**tensors, views=views, encoder=encoder)


def _check_cloud(
    h: Tensor, z: Tensor, labels: Tensor, index: Tensor, views: tuple[Tensor, ...] | None, images: int | None
) -> None:
    """ValueError unless the parts have the shapes and kinds that ``Cloud`` says."""
    fine = h.ndim == z.ndim == 2 and len(h) == len(z) >= 2 and labels.shape == index.shape == (len(h),)
    fine = fine and all(each.is_floating_point() for each in (h, z, *(views or ()))) and index.dtype == torch.int64
    fine = fine and (views is None or [view.shape for view in views] == [z.shape] * 2)
    if not (fine and 0 <= index.min() and (images is None or index.max() < images)):
        raise ValueError('its arrays do not fit one another, or the images')
