"""Data sets: views of images for training, one view of each for evaluation."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import Dataset

from mmkernel.checks import check_words
from mmkernel.registry import DATASETS, TRANSFORMS

from .device_views import DeviceViews, device_forms, has_device_form
from .draws import generator
from .images import check_pixels
from .label_checks import check_labels, targets_of
from .sources import Source
from .views import build_view

VIEWS_ON = ('auto', 'device', 'worker')
_SHARED = 2**32  # streams of what the views of a group share lie above those of the views


def as_source(source: Source | dict) -> Source:
    """A source, or one from its config, with labels that fit its classes. TypeError for anything else."""
    built = DATASETS.build(source) if isinstance(source, dict) else source
    if not isinstance(built, Source):
        raise TypeError(
            f"Expected a source of images or its config, dict(type='ImageFolder', root=...); got {built!r}."
        )
    check_labels(built)
    if built.on_corrupt != 'raise':
        _ = built.damaged  # made before workers start, so that they share it
    return built


def transformed(image: np.ndarray, transform: Callable[[np.ndarray], np.ndarray] | None, name: str) -> np.ndarray:
    """``transform`` of the image ``name``, which must be uint8 (H, W, C) again."""
    if transform is not None:
        image = transform(image)
        check_pixels(image, lambda: f'{type(transform).__name__} of {name}')
    return image


def to_tensor(image: np.ndarray, whole: np.ndarray) -> Tensor:
    """uint8 (H, W, C) -> uint8 (C, H, W), in the same memory unless that is a part of ``whole``, which the source may keep."""
    image = image.copy() if np.may_share_memory(image, whole) else np.require(image, requirements='CW')
    return torch.from_numpy(image).permute(2, 0, 1)


def fetch(source: Source, index: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Image uint8 (H, W, C) and ``dict(sample_index=, label=)``, with ``targets`` (C,) where images have several classes each.

    All of one record: that of a substitute where the image is damaged.
    """
    index, image = source.record(index)
    found, targets = dict(sample_index=index, label=source.label(index)), targets_of(source)
    return image, found if targets is None else dict(found, targets=targets[index])


@DATASETS.register_module()
class ViewDataset(Dataset):
    """(epoch, index) -> dict(inputs=[V uint8 tensors (C, H_v, W_v)], sample_index=index, label=label or -1).

    Images of a source with several classes each bring their ``targets`` (C,) too. A substitute of a damaged image comes with
    its own sample_index, label and targets.
    views: dict of named views (see ``views.py``); those set to None are left out. View v of image i in epoch e depends
    on (seed, e, i, v) only: not on workers, order, or what was drawn before. ``seed`` may be set until workers start.
    views_on: where operations are applied. 'worker': in the workers. 'device': on the device that ``place`` is told, a CPU too.
    'auto': if that is a GPU, the last operations of each view that all have a device form there, what comes before in the workers.
    Crops, and what is applied to the parent of patches, stay in the workers. Until ``place`` is called views are finished.
    exact: Pillow's bytes, made in the workers; otherwise views differ from them by less than one grey level on average.
    """

    def __init__(
        self,
        source: Source | dict,
        views: dict[str, dict | None],
        seed: int = 0,
        views_on: str = 'auto',
        exact: bool = False,
    ) -> None:
        check_words('ViewDataset', views_on=(views_on, VIEWS_ON), exact=(exact, (True, False)))
        if exact and views_on == 'device':
            raise ValueError(
                "ViewDataset: exact=True makes views by Pillow in the workers, views_on='device' on the device: "
                '--cfg-options train_dataloader.dataset.views_on=worker, or exact=False.'
            )
        self.source, self.seed = as_source(source), seed
        self.views_on, self.exact = views_on, exact
        self.finish: DeviceViews | None = None  # what ``place`` gave
        named = views.items() if isinstance(views, Mapping) else ()
        self.views = {name: build_view(name, cfg) for name, cfg in named if cfg is not None}
        if not self.views:
            raise ValueError('ViewDataset has no views; e.g. views=dict(first=dict(size=224, crop=..., ops=...))')
        for name, view in self.views.items() if views_on == 'device' else ():
            if lacking := [type(step).__name__ for step in view.chain.ops if not has_device_form(type(step))]:
                raise ValueError(
                    f"view '{name}': {', '.join(lacking)} cannot run on the device, as views_on='device' asks; "
                    f"{', '.join(device_forms())} can. Use views_on='auto', which leaves the others to the workers."
                )

    def place(self, device: torch.device | str) -> DeviceViews | None:
        """Leave to ``device`` what ``views_on`` says, from now on; returns what finishes items there, None if they are finished.

        To be called before workers start. It becomes the ``finish`` of a ``ViewPreprocessor``; a Runner sees to both.
        """
        wanted = self.views_on == 'device' or (self.views_on == 'auto' and torch.device(device).type == 'cuda')
        views = [view for view in self.views.values() for _ in range(view.count)]
        left = [view.chain.leave_to_device(wanted and not self.exact) for view in views]
        sizes = [view.chain.size_after(*view.size) for view in views]
        self.finish = DeviceViews(left, sizes) if any(left) else None
        return self.finish

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

            def streams(k: int, first: int = first) -> Generator:
                return generator(self.seed, epoch, index, first + k if k >= 0 else _SHARED + first)

            drawn.append(view.draw(streams, height, width))
            first += view.count
        return drawn

    def make(self, image: np.ndarray, drawn: list[Any], whole: bool = True) -> list[np.ndarray]:
        """The views of ``image`` with these parameters, uint8 (H_v, W_v, C); nothing random is left here.

        ``whole``: finished; otherwise without what is left to the device.
        """
        views = zip(self.views.values(), drawn, strict=True)
        return [made for view, params in views for made in view.apply(image, params, self.exact, whole)]

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        try:
            epoch, index = key
        except TypeError:
            raise TypeError(
                f'ViewDataset is indexed by (epoch, index), got {key!r}: without the epoch every epoch would repeat '
                "the same views. Use sampler=dict(type='EpochSampler') in the dataloader."
            ) from None
        image, about = fetch(self.source, index)
        drawn = self.draw(epoch, index, *image.shape[:2])
        if self.finish is not None:
            rows = [row for view, params in zip(self.views.values(), drawn, strict=True) for row in view.encode(params)]
            about['drawn'] = [torch.from_numpy(np.array(row, np.float32)) for row in rows]
        return dict(inputs=[to_tensor(view, image) for view in self.make(image, drawn, self.finish is None)], **about)


@DATASETS.register_module()
class EvaluationDataset(Dataset):
    """index -> dict(inputs=[one uint8 tensor (C, H, W)], sample_index=index, label=label or -1, maybe targets).

    ``inputs`` is a list of views, as in training; here of one, and nothing is random.
    """

    def __init__(self, source: Source | dict, transform: Any = None) -> None:
        self.source = as_source(source)
        self.transform = TRANSFORMS.build(transform) if isinstance(transform, dict) else transform

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, about = fetch(self.source, index)
        view = transformed(image, self.transform, self.source.name(index))
        return dict(inputs=[to_tensor(view, image)], **about)
