"""Pictures of views, and an overview of a comparison: views, spectra, a map and accuracies."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from mmkernel.visualization.embedding import draw_map, draw_spectra
from mmkernel.visualization.style import COLOURS, finish, new_figure, plain, show
from mmkernel.visualization.view_sheet import column_names

BASELINES = ('#BBBBBB', '#888888')  # raw pixels and the untrained encoder, the first two rows, are grey


def view_grid(
    dataset: Any, indices: Sequence[int] = (0, 1, 2, 3), epochs: Sequence[int] = (0,), path: str | Path | None = None
) -> Figure:
    """One row per image: the image, then its views in each of ``epochs``, as the dataset gives them to the model."""
    columns = len(epochs) * len(dataset.view_names) + 1
    figure = new_figure(1.1 * columns, 1.1 * len(indices) + 0.3)
    draw_views(figure.subplots(len(indices), columns, squeeze=False), dataset, indices, epochs)
    return finish(figure, path)


def draw_views(grid: np.ndarray, dataset: Any, indices: Sequence[int], epochs: Sequence[int] = (0,)) -> None:
    """Fill a grid of axes (images, 1 + epochs x views)."""
    names = column_names(dataset.view_names)
    names = [name if len(epochs) == 1 else f'{name}, epoch {epoch}' for epoch in epochs for name in names]
    for row, index in zip(grid, indices, strict=True):
        show(row[0], dataset.source.image(int(index)))
        views = [view for epoch in epochs for view in finished(dataset, dataset[(epoch, int(index))])]
        for axes, view in zip(row[1:], views, strict=True):
            show(axes, view)
    for axes, name in zip(grid[0], ['image', *names], strict=True):
        axes.set_title(name, fontsize=8)


def finished(dataset: Any, item: Mapping) -> list[Tensor]:
    """The views of an item as the model sees them, those too that the data set leaves to the device."""
    if 'drawn' not in item:
        return item['inputs']
    inputs, drawn = ([part[None] for part in item[key]] for key in ('inputs', 'drawn'))
    return [view[0].byte() for view in dataset.finish(inputs, drawn)]


def overview(
    dataset: Any,
    embeddings: Mapping[str, Tensor],
    points: np.ndarray,
    labels: Tensor,
    rows: Sequence[dict],
    classes: Sequence[str] = (),
    map_title: str = 'map of the features (t-SNE)',
    indices: Sequence[int] = (0, 1, 2, 3),
    path: str | Path | None = None,
) -> Figure:
    """From left to right: views of ``dataset``, spectra of ``embeddings``, map of ``points``; accuracy of ``rows`` below.

    ``rows`` are those of :func:`mmkernel.evaluation.evaluate` with ``few_label_scores``.
    """
    figure = new_figure(13, 6.6)
    above, below = figure.subfigures(2, 1, height_ratios=(3.6, 3))
    left, middle, right = above.subfigures(1, 3, width_ratios=(1, 1.5, 1.2))
    draw_views(left.subplots(len(indices), 1 + len(dataset.view_names), squeeze=False), dataset, indices)
    colours = dict(zip((row['name'] for row in rows), BASELINES + COLOURS, strict=False))
    draw_spectra(middle.subplots(), embeddings, colours)
    draw_map(right.subplots(), points, labels, classes, map_title)
    for axes, kind in zip(below.subplots(1, 2, sharey=True), ('knn', 'linear'), strict=True):
        draw_scores(axes, rows, kind)
    below.legend(*axes.get_legend_handles_labels(), loc='outside lower center', ncols=len(rows), frameon=False)
    return finish(figure, path)


def draw_scores(axes: Axes, rows: Sequence[dict], kind: str) -> None:
    """Bars of mean accuracy, one group per number of labels, one bar per encoder; whiskers: sd over draws."""
    shots = list(rows[0]['scores'][kind])
    width = 0.8 / len(rows)
    shades = BASELINES + COLOURS
    for position, row in enumerate(rows):
        x = np.arange(len(shots)) + (position - (len(rows) - 1) / 2) * width
        shade = shades[position % len(shades)]
        means, spread = ([row['scores'][kind][shot][word] for shot in shots] for word in ('mean', 'sd'))
        axes.bar(x, means, width * 0.92, yerr=spread, color=shade, label=row['name'], error_kw=dict(linewidth=0.8))
        for place, mean, sd in zip(x, means, spread, strict=True):
            axes.text(place, mean + sd + 1, f'{mean:.1f}', ha='center', fontsize=6.5)
    words = ['all labels' if shot == 'all' else f'{shot} label{"s" * (shot != "1")} per class' for shot in shots]
    axes.set_xticks(np.arange(len(shots)), words)
    axes.set_ylim(0, 112)
    plain(axes, {'knn': 'nearest neighbours', 'linear': 'linear classifier'}[kind], y='accuracy, %')
    axes.set_yticks(range(0, 101, 20))
