"""Plots: each function returns a matplotlib Figure and writes it where ``path`` says. No window is ever opened."""

from mmkernel.visualization.curves import loss_curves, read_scalars
from mmkernel.visualization.embedding import embedding_map, planar_map, spectrum_plot
from mmkernel.visualization.overview import overview
from mmkernel.visualization.views import view_grid

__all__ = [
    'embedding_map', 'loss_curves', 'overview', 'planar_map', 'read_scalars', 'spectrum_plot', 'view_grid',
]  # fmt: skip
