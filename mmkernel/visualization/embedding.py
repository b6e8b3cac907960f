"""Pictures of an embedding cloud: its covariance spectrum and a map in the plane."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from mmkernel.evaluation import covariance_spectrum, effective_rank
from mmkernel.visualization.style import GREY, colour, finish, legend_below, new_figure, plain

FLOOR = 1e-10  # below, an eigenvalue is rounding of float32


def spectrum_plot(embeddings: Mapping[str, Tensor], path: str | Path | None = None) -> Figure:
    """log10 eigenvalues of the covariance of z / ||z||, largest first, one line per encoder; dotted: uniform, 1/q."""
    figure = new_figure(4.8, 3.9)
    draw_spectra(figure.subplots(), embeddings)
    return finish(figure, path)


def draw_spectra(axes: Axes, embeddings: Mapping[str, Tensor], colours: Mapping[str, str] | None = None) -> None:
    """Eigenvalues below 1e-10 are drawn at it, since float32 embeddings cannot tell them from 0.

    N images span N - 1 directions: of wider embeddings the eigenvalues after these are 0 for want of images, and not drawn.
    """
    limits, rounded = set(), False
    for position, (name, z) in enumerate(embeddings.items()):
        values = covariance_spectrum(z)
        label = f'{name} (effective rank {effective_rank(values):.0f} of {len(values)})'
        shade = (colours or {}).get(name, colour(position))
        seen = min(len(z) - 1, len(values))
        heights = values[:seen].clamp_min(FLOOR).log10()
        rounded |= bool((values[:seen] <= FLOOR).any())
        axes.plot(np.arange(1, seen + 1), heights, color=shade, label=label, linewidth=1.5)
        limits |= {(seen, len(z))} if seen < len(values) else set()
    for seen, images in sorted(limits):
        axes.axvline(
            seen, color=GREY, linestyle='--', linewidth=1, label=f'limit of {images:,} images: {seen:,} directions'
        )
    if rounded:
        place = axes.get_yaxis_transform()
        axes.text(0.01, np.log10(FLOOR), ' below: rounding of float32', transform=place, fontsize=7, color=GREY)
    widths = {z.shape[1] for z in embeddings.values()}
    if len(widths) == 1:
        axes.axhline(-np.log10(widths.pop()), color=GREY, linestyle=':', linewidth=1, label='uniform on the sphere')
    plain(axes, 'covariance spectrum of the embeddings', 'rank of eigenvalue', 'log10 eigenvalue')
    legend_below(axes)


def planar_map(features: Tensor, seed: int = 0) -> np.ndarray:
    """(N, 2): t-SNE (van der Maaten & Hinton, 2008) of l2-normalised features, started from their two main axes.

    Equal features are all placed at (0, 0).
    """
    from sklearn.manifold import TSNE  # a second to import

    unit = F.normalize(torch.as_tensor(features).float(), dim=1).numpy()
    if len(unit) < 3:
        raise ValueError(f'a map of {len(unit)} images; expected at least 3.')
    if float(unit.std(axis=0).max()) < 1e-6:  # one point: the start would be 0/0, on which scikit-learn's tree crashes
        return np.zeros((len(unit), 2))
    return TSNE(perplexity=min(30, (len(unit) - 1) / 3), init='pca', random_state=seed).fit_transform(unit)


def embedding_map(
    features: Tensor,
    labels: Tensor,
    classes: Sequence[str] = (),
    points: np.ndarray | None = None,
    title: str = 'map of the features (t-SNE)',
    path: str | Path | None = None,
) -> Figure:
    """Each image a point of :func:`planar_map` (or of ``points``, (N, 2), if already made), coloured by its label."""
    figure = new_figure(4.6, 4.2)
    draw_map(figure.subplots(), planar_map(features) if points is None else points, labels, classes, title)
    return finish(figure, path)


def draw_map(
    axes: Axes, points: np.ndarray, labels: Tensor, classes: Sequence[str] = (), title: str = 'map (t-SNE)'
) -> None:
    """Points coloured by label; up to 12 classes are named in the middle of their points."""
    labels = np.asarray(labels)
    found = np.unique(labels)
    axes.scatter(*points.T, c=np.searchsorted(found, labels), cmap='tab10' if len(found) <= 10 else 'turbo', s=6)
    for label in found if len(found) <= 12 else ():
        middle = np.median(points[labels == label], axis=0)
        name = classes[label] if 0 <= label < len(classes) else str(label)
        box = dict(boxstyle='round,pad=0.15', facecolor='white', edgecolor='none', alpha=0.75)
        axes.text(*middle, name, ha='center', va='center', fontsize=9, bbox=box)
    axes.set_xticks([])
    axes.set_yticks([])
    plain(axes, title)
    axes.spines[['left', 'bottom']].set_visible(False)
