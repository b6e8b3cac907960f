"""The contract of a source (see ``Source``), tried on a few of its images before a run."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from .sources import Source
from .training import ViewDataset


def check_samples(dataset: Any, channels: int | None = None, workers: int = 0, count: int = 5) -> str:
    """ValueError naming the first of ``count`` images, evenly spaced from the first to the last, that breaks the contract.

    Each has a name and is uint8 (H, W, C) with ``channels`` channels (None: with those of the first), also as a view. Views
    are of epoch 0. The draws of a run do not move, and where it has workers, one worker of its own reads: what a source opens
    is then opened there, as it expects. Returns what was found, for the log; '' for a dataset without a ``Source``.
    """
    source = getattr(dataset, 'source', None)
    if not isinstance(source, Source) or not len(source):
        return ''
    rows = np.unique(np.linspace(0, len(source) - 1, count).round().astype(int))
    found: list[Any] = []
    own = torch.Generator()  # or the loader would draw from that of the run
    for one in DataLoader(
        _Samples(dataset, rows), None, num_workers=min(workers, 1), collate_fn=_as_it_is, generator=own
    ):
        if isinstance(one, str):
            raise ValueError(one)
        found.append(one)
    wanted = f'the model takes {channels}'
    if channels is None:
        channels, wanted = found[0][1][-1], f'{found[0][0]} has {found[0][1][-1]}, and a batch holds images of one kind'
    for name, shape, views in found:
        if odd := [c for c in views or shape[-1:] if c != channels]:
            raise ValueError(
                f'{type(source).__name__}: {name} has {odd[0]} channel(s); {wanted}. Set model.backbone.in_channels and as many '
                "entries of data_preprocessor.mean and std, or let the source give that many (mode='RGB' or 'L' of file readers)."
            )
    smallest, largest = (pick(found, key=lambda one: one[1][0] * one[1][1])[1] for pick in (min, max))
    sizes = ' to '.join(dict.fromkeys(f'{w} x {h}' for h, w, _ in (smallest, largest)))
    return f'{len(found)} images tried: {sizes} px, {smallest[2]} channel(s)' + (
        ', EXIF orientation applied' if _upright(source) else ''
    )


def _upright(source: Any) -> bool:
    """Whether photographs are turned, by the source or by one that it is made of."""
    return bool(getattr(source, 'upright', False)) or hasattr(source, 'source') and _upright(source.source)


class _Samples(Dataset):
    """k -> (name, shape of the image, channels of its views) of image ``rows[k]``, or what is wrong with it."""

    def __init__(self, dataset: Any, rows: np.ndarray) -> None:
        self.dataset, self.rows = dataset, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, k: int) -> Any:
        source, i = self.dataset.source, int(self.rows[k])
        try:
            name = source.name(i)
        except Exception as error:  # a user's own may be of a kind that does not travel between processes
            return f'{type(source).__name__}.name({i}): {type(error).__name__}: {error}'
        if not isinstance(name, str) or not name:
            return f'{type(source).__name__}.name({i}) gave {name!r}; expected a path or another name in words.'
        try:
            _, image = source.record(i)
        except Exception as error:
            ours = isinstance(error, (ValueError, TypeError, OSError)) and str(error)  # it names the record
            return f'{error}' if ours else f'{type(source).__name__}.read({i}), {name}: {type(error).__name__}: {error}'
        try:
            item = self.dataset[(0, i) if isinstance(self.dataset, ViewDataset) else i]
        except Exception as error:
            size = f'{image.shape[1]} x {image.shape[0]} px, {image.shape[2]} channel(s)'
            return f'the views of {name} ({size}): {type(error).__name__}: {error}'
        views = item.get('inputs', ()) if isinstance(item, Mapping) else ()
        return name, image.shape, [view.shape[0] for view in views]


def _as_it_is(sample: Any) -> Any:
    return sample
