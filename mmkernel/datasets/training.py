"""Images as views for training, and as they are for evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmkernel.registry import DATASETS, TRANSFORMS

from .draws import generator
from .sources import Source, targets_of
from .views import build_view

_SHARED = 2**32  # streams of what the views of a group share lie above those of the views


def as_source(source: Source | dict) -> Source:
    """A source from its config; TypeError for anything else (a string, say, that was meant to be a config)."""
    built = DATASETS.build(source) if isinstance(source, dict) else source
    if not hasattr(built, 'sample'):  # any object with a source's methods will do
        raise TypeError(
            f"Expected a source of images or its config, e.g. dict(type='ImageFolder', root=...); got {built!r}."
        )
    return built


def to_tensor(image: np.ndarray) -> Tensor:
    """uint8 (H, W, C) -> uint8 (C, H, W), contiguous, its own memory."""
    return torch.from_numpy(image.transpose(2, 0, 1).copy())


def about(source: Source, index: int, label: int) -> dict[str, Any]:
    """``dict(sample_index=, label=)``, and ``targets`` (C,) where images have several classes each."""
    targets = targets_of(source)
    return dict(sample_index=index, label=label, **({} if targets is None else dict(targets=targets[index])))


@DATASETS.register_module()
class ViewDataset(Dataset):
    """(epoch, index) -> dict(inputs=[V uint8 tensors (C, H_v, W_v)], sample_index=index, label=label or -1).

    Images of a source with several classes each bring their ``targets`` (C,) too.
    views: dict of named views (see ``views.py``); those set to None are left out. View v of image i in epoch e depends
    on (seed, e, i, v) only: not on workers, order, or what was drawn before. ``seed`` may be set until workers start.
    """

    def __init__(self, source: Source | dict, views: dict[str, dict | None], seed: int = 0) -> None:
        self.source, self.seed = as_source(source), seed
        self.views = {name: build_view(name, cfg) for name, cfg in views.items() if cfg is not None}
        if not self.views:
            raise ValueError('ViewDataset has no views; e.g. views=dict(first=dict(size=224, crop=..., ops=...))')

    @property
    def view_names(self) -> list[str]:
        """The name of the view at each position of ``inputs``."""
        return [name for name, view in self.views.items() for _ in range(view.count)]

    @property
    def metainfo(self) -> dict[str, Any]:
        return dict(classes=self.source.classes, view_names=self.view_names)

    def __len__(self) -> int:
        return len(self.source)

    def draw(self, epoch: int, index: int, height: int, width: int) -> list[Any]:
        """The parameters of all views of an image of this size, one entry per named view."""
        drawn, first = [], 0
        for view in self.views.values():
            drawn.append(view.draw(self._streams(epoch, index, first), height, width))
            first += view.count
        return drawn

    def _streams(self, epoch: int, index: int, first: int) -> Any:
        return lambda k: generator(self.seed, epoch, index, first + k if k >= 0 else _SHARED + first)

    def make(self, image: np.ndarray, drawn: list[Any]) -> list[np.ndarray]:
        """The views of ``image`` with these parameters, uint8 (H_v, W_v, C); nothing random is left here."""
        return [
            made for view, params in zip(self.views.values(), drawn, strict=True) for made in view.apply(image, params)
        ]

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        try:
            epoch, index = key
        except TypeError:
            raise TypeError(
                f'ViewDataset is indexed by (epoch, index), got {key!r}: without the epoch every epoch would repeat '
                "the same views. Use sampler=dict(type='EpochSampler') in the dataloader."
            ) from None
        image, label = self.source.sample(index)
        made = self.make(image, self.draw(epoch, index, *image.shape[:2]))
        return dict(inputs=[to_tensor(view) for view in made], **about(self.source, index, label))


@DATASETS.register_module()
class EvaluationDataset(Dataset):
    """index -> dict(inputs=uint8 tensor (C, H, W), sample_index=index, label=label or -1, maybe targets); nothing random."""

    def __init__(self, source: Source | dict, transform: Any = None) -> None:
        self.source = as_source(source)
        self.transform = TRANSFORMS.build(transform) if isinstance(transform, dict) else transform

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, label = self.source.sample(index)
        image = image if self.transform is None else self.transform(image)
        return dict(inputs=to_tensor(image), **about(self.source, index, label))


def check_dataloader(dataloader: DataLoader) -> None:
    """ValueError unless there is at least one batch; mmengine would end in a division by zero much later."""
    if len(dataloader):
        return
    images, size = len(dataloader.sampler), dataloader.batch_size
    raise ValueError(
        f'{images} images per process make no batch of {size} with drop_last=True. Set train_dataloader.batch_size to '
        f'at most {images}, use fewer processes, or check that the data folder is complete.'
    )
