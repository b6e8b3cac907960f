"""What the encoder sees: a few images and their augmented views."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from mmkernel.visualization.style import finish, new_figure


def view_grid(
    dataset: Any,
    indices: Sequence[int] = (0, 1, 2, 3),
    epochs: Sequence[int] = (0,),
    path: str | Path | None = None,
) -> Figure:
    """One row per image: the image, then its views in each of ``epochs``, as the dataset gives them to the model."""
    columns = len(epochs) * len(dataset.view_names) + 1
    figure = new_figure(1.1 * columns, 1.1 * len(indices) + 0.3)
    grid = figure.subplots(len(indices), columns, squeeze=False)
    draw_views(grid, dataset, indices, epochs)
    return finish(figure, path)


def draw_views(grid: np.ndarray, dataset: Any, indices: Sequence[int], epochs: Sequence[int] = (0,)) -> None:
    """Fill a grid of axes (images, 1 + epochs x views)."""
    count = Counter(dataset.view_names)
    names = [
        f'{name} {dataset.view_names[:position].count(name) + 1}' if count[name] > 1 else name
        for position, name in enumerate(dataset.view_names)
    ]
    names = [name if len(epochs) == 1 else f'{name}, epoch {epoch}' for epoch in epochs for name in names]
    for row, index in zip(grid, indices, strict=True):
        show(row[0], dataset.source.image(int(index)))
        views = [view for epoch in epochs for view in dataset[(epoch, int(index))]['inputs']]
        for axes, view in zip(row[1:], views, strict=True):
            show(axes, view)
    for axes, name in zip(grid[0], ['image', *names], strict=True):
        axes.set_title(name, fontsize=8)


def show(axes: Axes, image: Tensor | np.ndarray) -> None:
    """A uint8 image, (C, H, W) tensor or (H, W, C) array; other than 3 channels: the first, in grey."""
    pixels = image.permute(1, 2, 0).numpy() if isinstance(image, Tensor) else image
    if pixels.shape[2] == 3:
        axes.imshow(pixels, interpolation='nearest')
    else:
        axes.imshow(pixels[..., 0], cmap='gray', vmin=0, vmax=255, interpolation='nearest')
    axes.set_xticks([])
    axes.set_yticks([])
