"""The look that all plots share: thin axes, few colours that colour-blind readers can distinguish, no global state."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.transforms import ScaledTranslation
from torch import Tensor

# Okabe & Ito's palette (2008), without its yellow, which vanishes on white.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
GREY = '#777777'


def colour(position: int) -> str:
    return COLOURS[position % len(COLOURS)]


def new_figure(width: float, height: float) -> Figure:
    """A Figure outside pyplot: it needs no display, and nothing has to be closed."""
    return Figure(figsize=(width, height), layout='constrained')


def plain(axes: Axes, title: str = '', x: str = '', y: str = '') -> Axes:
    axes.spines[['top', 'right']].set_visible(False)
    axes.set_title(title, loc='left', fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return axes


def legend_below(axes: Axes, columns: int = 1) -> Legend:
    """The legend under the label of the x axis, where it hides no data; the layout makes room for it."""
    under = axes.transAxes + ScaledTranslation(0, -36 / 72, axes.figure.dpi_scale_trans)  # ticks and label: 36 points
    place = dict(loc='upper left', bbox_to_anchor=(0, 0), bbox_transform=under, borderaxespad=0)
    return axes.legend(frameon=False, fontsize=8, ncols=columns, **place)


def finish(figure: Figure, path: str | Path | None) -> Figure:
    """Save where a path is given (the folder is made; the format follows from the suffix, without one ValueError)."""
    if path is not None:
        if not Path(path).suffix:
            raise ValueError(f"the picture '{path}' has no suffix to tell its format: name it '{path}.png'.")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    return figure


def show(axes: Axes, image: Tensor | np.ndarray) -> None:
    """A uint8 image, (C, H, W) tensor or (H, W, C) array; other than 3 channels: the first, in grey."""
    pixels = image.permute(1, 2, 0).numpy() if isinstance(image, Tensor) else image
    pixels = pixels if pixels.shape[2] == 3 else pixels[..., 0]
    axes.imshow(pixels, cmap='gray', vmin=0, vmax=255, interpolation='nearest')  # colours need no map
    axes.set_xticks([])
    axes.set_yticks([])
