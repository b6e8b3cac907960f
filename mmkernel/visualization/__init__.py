"""Plots: each function returns a matplotlib Figure and writes it where ``path`` says. No window is ever opened."""

from mmkernel.visualization.curves import curves_of, read_scalars, run_curves
from mmkernel.visualization.embedding import embedding_map, planar_map, spectrum_plot
from mmkernel.visualization.overview import overview, view_grid
