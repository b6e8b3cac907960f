"""A page on one embedding cloud: verdict, spectrum, plane, moments, neighbours, map; as PNG and as one HTML file."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmkernel.evaluation.cloud import DEGREES
from mmkernel.evaluation.diagnosis import COLLAPSED, DOUBTFUL, HEALTHY, Diagnosis, reference
from mmkernel.evaluation.knn import nearest
from mmkernel.evaluation.sampled_images import Cloud
from mmkernel.visualization.embedding import draw_map, draw_spectra, planar_map
from mmkernel.visualization.html_page import badge, facts, html_page, picture, text, write_page
from mmkernel.visualization.style import GREY, finish, legend_below, new_figure, plain, show

SIGNAL = {HEALTHY: '#009E73', DOUBTFUL: '#E69F00', COLLAPSED: '#D55E00'}
QUERIES, NEIGHBOURS = 4, 6


def diagnosis_page(
    diagnosis: Diagnosis, cloud: Cloud, source: Any, title: str = '', path: str | Path | None = None
) -> Figure:
    """Six panels and the verdict. ``source`` gives the images of ``cloud.index``."""
    figure = new_figure(12.5, 8.6)
    head, above, below = figure.subfigures(3, 1, height_ratios=(1.15, 3.6, 3.85))
    head.text(0.012, 0.9, title, fontsize=9, color=GREY, va='top')
    badge = dict(boxstyle='round,pad=0.4', facecolor=SIGNAL[diagnosis.state], edgecolor='none')
    head.text(0.018, 0.42, diagnosis.state, fontsize=15, color='white', weight='bold', va='center', bbox=badge)
    head.text(0.125, 0.42, textwrap.fill(diagnosis.verdict, 125), fontsize=11.5, va='center')
    draw_cloud(above, diagnosis, cloud)
    draw_images(below, cloud, source)
    return finish(figure, path)


def draw_cloud(figure: Any, diagnosis: Diagnosis, cloud: Cloud) -> None:
    """Spectrum, plane and moments of the embeddings."""
    spectrum, plane, moments = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
    draw_spectra(spectrum, {'this run': cloud.z}, {'this run': SIGNAL[diagnosis.state]})
    draw_plane(plane, diagnosis)
    draw_moments(moments, diagnosis)


def draw_images(figure: Any, cloud: Cloud, source: Any) -> None:
    """Nearest neighbours, and the map, by backbone features."""
    left, right = figure.subfigures(1, 2, width_ratios=(1.35, 1))
    draw_neighbours(left, cloud, source)
    labels, named = cloud.labels, getattr(cloud.labels, 'classes', ()) or source.classes
    if (cloud.labels < 0).all():
        labels, named = torch.zeros_like(cloud.labels), ['']
    draw_map(right.subplots(), planar_map(cloud.h), labels, named, 'map of the backbone features (t-SNE)')


def draw_plane(axes: Axes, diagnosis: Diagnosis) -> None:
    """Alignment against uniformity (Wang & Isola, ICML 2020): good runs lie low and to the left."""
    for state, label in ((HEALTHY, 'measured healthy runs'), (COLLAPSED, 'measured collapsed runs')):
        runs = [r for r in reference()['runs'] if r['state'] == state and r['alignment'] is not None]
        points = [(r['uniformity'], r['alignment']) for r in runs]
        axes.scatter(*zip(*points, strict=True), s=14, color=SIGNAL[state], alpha=0.35, linewidths=0, label=label)
    found = diagnosis.statistics
    if found.alignment is None:
        axes.axvline(found.uniformity, color='black', linewidth=1.5, label='this run (no second views)')
    else:
        axes.plot(found.uniformity, found.alignment, '*', color='black', markersize=14, label='this run')
    plain(axes, 'alignment and uniformity', 'uniformity (better to the left)', 'alignment (better below)')
    axes.set_ylim(bottom=0)
    legend_below(axes)


def draw_moments(axes: Axes, diagnosis: Diagnosis) -> None:
    """E P_l(z.z') of each degree beside its null band: which moments differ from those of the uniform distribution."""
    found = diagnosis.statistics
    sizes, bands = np.abs(found.moments), 2 * np.array(found.moments_sd)
    axes.bar(DEGREES, sizes, 0.6, color=SIGNAL[diagnosis.state])
    axes.bar(DEGREES, bands, 0.8, color='#BBBBBB', label=f'null band, 2 sd of {found.images:,} uniform points')
    for l, size in zip(DEGREES, sizes, strict=True):
        axes.text(l, max(size, 1e-5) * 1.15, f'{size:.2g}', ha='center', fontsize=8)
    axes.set_yscale('log')
    axes.set_ylim(1e-5, 3)
    axes.set_xticks(DEGREES)
    plain(axes, "|MMD² to uniform| by degree, E Pₗ(z·z')", 'degree l (1: mean, 2: covariance)')
    share = f'{100 * found.mmd2_share:.1f} % of a point, null sd {found.mmd2_sd:.2g}'
    axes.bar([1], [0], color='none', label=f'all degrees under the kernel: {found.mmd2:.3g},\n{share}')
    legend_below(axes)


def draw_neighbours(figure: Any, cloud: Cloud, source: Any) -> None:
    """A row for each of a few images: itself, set apart in black, then its nearest by cosine of the backbone features.

    Frames say whether labels agree.
    """
    rows = torch.linspace(0, len(cloud.h) - 1, min(QUERIES, len(cloud.h))).round().long()
    k = min(NEIGHBOURS + 1, len(cloud.h))
    _, found = nearest(cloud.h[rows], cloud.h, k, 'cpu')
    cells = figure.add_gridspec(len(rows), k + 1, width_ratios=(1, 0.12, *[1] * (k - 1)))  # the second: a gap
    for place, (row, neighbours) in enumerate(zip(rows.tolist(), found.tolist(), strict=True)):
        panels = [figure.add_subplot(cells[place, column]) for column in (0, *range(2, k + 1))]
        others = [i for i in neighbours if i != row][: k - 1]  # of equal features any may come first
        for panel, i in zip(panels, [row, *others], strict=True):
            show(panel, source.image(int(cloud.index[i])))
            known = int(cloud.labels[row]) >= 0 and int(cloud.labels[i]) >= 0 and i != row
            alike = cloud.labels[i] == cloud.labels[row]
            shade = (SIGNAL[HEALTHY] if alike else SIGNAL[COLLAPSED]) if known else GREY
            for spine in panel.spines.values():
                spine.set(color='black' if i == row else shade, linewidth=2 if known or i == row else 0.6)
        for panel, name in zip(panels if place == 0 else (), ['image', *map(str, range(1, k))], strict=False):
            panel.set_title(name, fontsize=8, color='black' if name == 'image' else GREY)
    framed = '; frame green: same label, orange: another' if bool((cloud.labels >= 0).any()) else ''
    # a title of one panel would widen its column
    figure.suptitle(f'an image and those nearest to it by backbone features{framed}', x=0.012, ha='left', fontsize=10)


def verdict_html(diagnosis: Diagnosis) -> str:
    """State, verdict and findings in words."""
    findings = ''.join(f'<li>{text(finding)}</li>' for finding in diagnosis.findings)
    state = badge(diagnosis.state, SIGNAL[diagnosis.state])
    return f'<p class="verdict">{state}{text(diagnosis.verdict)}</p><ul>{findings}</ul><p class="soft">{CAUTION}</p>'


CAUTION = 'Thresholds are those of measured small runs; a statistic near one says little on other data.'


def diagnosis_html(diagnosis: Diagnosis, figure: Figure, title: str, path: str | Path) -> Path:
    """One self-contained file: verdict, findings, the page of ``diagnosis_page``, where it comes from."""
    sections = {
        'Diagnosis': verdict_html(diagnosis),
        'Pictures': picture(figure, 'spectrum, plane, moments, neighbours, map', kind='png'),
    }
    return write_page(path, html_page(title, facts(diagnosis.about), sections))
