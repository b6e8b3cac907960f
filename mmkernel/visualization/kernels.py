"""Kernels side by side: profile, slope, expansion, and which degree pulls."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.figure import Figure
from scipy.special import betaincinv

from mmkernel.kernels.lab import KernelProfile
from mmkernel.visualization.style import GREY, colour, finish, new_figure, plain

MARKERS = 'osD^vP*'
FLOOR = 1e-12  # below, a b_l is rounding


def kernel_plot(profiles: Mapping[str, KernelProfile], path: str | Path | None = None) -> Figure:
    """Four panels with one colour per kernel, all at one width q. ``profiles``: name -> ``kernel_profile(...)``.

    (phi(t) - b_0) / (phi(1) - b_0): 0 where the energy of uniform points lies, 1 for a pair that coincides. |phi'(t)| over its
    largest value on [-1, 0.98]: how hard a pair is pushed apart. b_l over their sum phi(1) - b_0. Each degree's share of the root
    mean square gradient while points are uniform.
    """
    widths = {(p.q, p.count) for p in profiles.values()}
    if len(widths) != 1:
        raise ValueError(f'kernels are compared at one width and one N; got (q, N) = {sorted(widths)}.')
    ((q, count),) = widths
    figure = new_figure(10.5, 7.2)
    (profile, slope), (expansion, pull) = figure.subplots(2, 2)
    width = 0.8 / len(profiles)
    for i, (name, p) in enumerate(profiles.items()):
        shade, height = colour(i), p.point if math.isfinite(p.point) else 1.0
        profile.plot(p.t, (p.phi - p.definiteness.constant) / height, color=shade, label=name, linewidth=1.6)
        seen = p.t <= 0.98  # a power of the distance has an infinite slope at 1
        size = p.slope[seen].abs() / (float(p.slope[seen].abs().max()) or 1.0)
        up = torch.where(p.slope[seen] >= 0, size, torch.nan)
        slope.plot(p.t[seen], up.clamp_min(1e-5), color=shade, linewidth=1.6)
        slope.plot(p.t[seen], size.clamp_min(1e-5), color=shade, linewidth=0.9, linestyle=':')
        b = p.coefficients[1:] / height
        l = torch.arange(1, len(b) + 1)
        for sign, marker in ((b > FLOOR, MARKERS[i % len(MARKERS)]), (b < -FLOOR, 'x')):
            expansion.plot(l[sign], b[sign].abs(), marker, color=shade, markersize=6, linestyle='none')
        expansion.plot(l, torch.where(b.abs() > FLOOR, b.abs(), torch.nan), color=shade, linewidth=0.8, alpha=0.6)
        expansion.set_xticks(l.tolist())
        sizes = torch.tensor(p.degree_gradients)
        share = (sizes / sizes.sum().clamp_min(1e-300)).clamp_min(1e-9)
        l = torch.arange(1, len(share) + 1)
        pull.bar(l + (i - (len(profiles) - 1) / 2) * width, share, width * 0.92, color=shade)
        pull.set_xticks(l.tolist())
    # 95 % of t of independent uniform points: t^2 has the law Beta(1/2, (q - 1)/2)
    reach = math.sqrt(betaincinv(0.5, (q - 1) / 2, 0.95))
    for axes in (profile, slope):
        label = '95 % of pairs of uniform points'
        axes.axvspan(-reach, reach, color='#BBBBBB', alpha=0.45, linewidth=0, label=label)
    profile.axhline(0, color=GREY, linewidth=0.7)
    for axes in (slope, expansion, pull):
        axes.set_yscale('log')
    slope.set_ylim(1e-5, 2)
    expansion.margins(y=0.15)
    pull.set_ylim(1e-6, 1.5)
    plain(profile, 'profile, (φ(t) − b₀) / (φ(1) − b₀)', 't = u·v')
    plain(slope, "push, |φ'(t)| / its maximum (dotted: a pull, φ' < 0)", 't = u·v')
    plain(expansion, 'expansion, bₗ / (φ(1) − b₀) (crosses: negative)', 'degree l')
    plain(pull, "who moves nearly uniform points: share of rms bₗ Pₗ'(t)", 'degree l')
    figure.suptitle(f'q = {q:,}, N = {count:,}', x=0.01, ha='left', fontsize=10, color=GREY)
    figure.legend(*profile.get_legend_handles_labels(), loc='outside lower center', ncols=3, frameon=False)
    return finish(figure, path)
