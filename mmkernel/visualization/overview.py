"""One picture that tells a comparison of encoders: views, spectra, a map, accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from mmkernel.visualization.embedding import draw_map, draw_spectra
from mmkernel.visualization.style import COLOURS, finish, new_figure, plain
from mmkernel.visualization.views import draw_views

BASELINES = ('#BBBBBB', '#888888')  # raw pixels and the untrained encoder, the first two rows, are grey


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
    for position, row in enumerate(rows):
        scores = [row['scores'][kind][shot] for shot in shots]
        x = np.arange(len(shots)) + (position - (len(rows) - 1) / 2) * width
        shade = (BASELINES + COLOURS)[position % (len(BASELINES) + len(COLOURS))]
        means = [score['mean'] for score in scores]
        spread = [score['sd'] for score in scores]
        axes.bar(x, means, width * 0.92, yerr=spread, color=shade, label=row['name'], error_kw=dict(linewidth=0.8))
        for place, mean, sd in zip(x, means, spread, strict=True):
            axes.text(place, mean + sd + 1, f'{mean:.1f}', ha='center', fontsize=6.5)
    words = ['all labels' if shot == 'all' else f'{shot} label{"s" * (shot != "1")} per class' for shot in shots]
    axes.set_xticks(np.arange(len(shots)), words)
    axes.set_ylim(0, 112)
    plain(axes, {'knn': 'nearest neighbours', 'linear': 'linear classifier'}[kind], y='accuracy, %')
    axes.set_yticks(range(0, 101, 20))
