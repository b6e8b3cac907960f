"""Kernels side by side: profile, slope, expansion, and which degree pulls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import betaincinv

from mmkernel.kernels.lab import KernelProfile
from mmkernel.visualization.style import GREY, colour, finish, new_figure, plain

MARKERS = 'osD^vP*'
FLOOR = 1e-12  # below, a b_l is rounding


def kernel_plot(profiles: Mapping[str, KernelProfile], path: str | Path | None = None) -> Figure:
    """Four panels with one colour per kernel, all at one width q. ``profiles``: name -> ``kernel_profile(...)``."""
    widths = {(p.q, p.count) for p in profiles.values()}
    if len(widths) != 1:
        raise ValueError(f'kernels are compared at one width and one N; got (q, N) = {sorted(widths)}.')
    ((q, count),) = widths
    figure = new_figure(10.5, 7.2)
    (profile, slope), (expansion, pull) = figure.subplots(2, 2)
    draw_profiles(profile, profiles)
    draw_slopes(slope, profiles)
    draw_expansions(expansion, profiles)
    draw_pulls(pull, profiles)
    figure.suptitle(f'q = {q:,}, N = {count:,}', x=0.01, ha='left', fontsize=10, color=GREY)
    figure.legend(*profile.get_legend_handles_labels(), loc='outside lower center', ncols=3, frameon=False)
    return finish(figure, path)


def draw_profiles(axes: Axes, profiles: Mapping[str, KernelProfile]) -> None:
    """(phi(t) - b_0) / (phi(1) - b_0): 0 where the energy of uniform points lies, 1 for a pair that coincides."""
    for i, (name, p) in enumerate(profiles.items()):
        height = p.point if math.isfinite(p.point) else 1.0
        axes.plot(p.t, (p.phi - p.definiteness.constant) / height, color=colour(i), label=name, linewidth=1.6)
    _shade_typical(axes, next(iter(profiles.values())))
    axes.axhline(0, color=GREY, linewidth=0.7)
    plain(axes, 'profile, (φ(t) − b₀) / (φ(1) − b₀)', 't = u·v')


def draw_slopes(axes: Axes, profiles: Mapping[str, KernelProfile]) -> None:
    """|phi'(t)| over its largest value on [-1, 0.98]: how hard a pair is pushed apart."""
    for i, p in enumerate(profiles.values()):
        seen = p.t <= 0.98  # a power of the distance has an infinite slope at 1
        size = p.slope[seen].abs()
        largest = float(size.max()) or 1.0
        up = torch.where(p.slope[seen] >= 0, size / largest, torch.nan)
        axes.plot(p.t[seen], up.clamp_min(1e-5), color=colour(i), linewidth=1.6)
        axes.plot(p.t[seen], (size / largest).clamp_min(1e-5), color=colour(i), linewidth=0.9, linestyle=':')
    _shade_typical(axes, next(iter(profiles.values())))
    axes.set_yscale('log')
    axes.set_ylim(1e-5, 2)
    plain(axes, "push, |φ'(t)| / its maximum (dotted: a pull, φ' < 0)", 't = u·v')


def draw_expansions(axes: Axes, profiles: Mapping[str, KernelProfile]) -> None:
    """b_l over their sum phi(1) - b_0; crosses are negative."""
    for i, p in enumerate(profiles.values()):
        b = p.coefficients[1:] / (p.point if math.isfinite(p.point) else 1.0)
        l = torch.arange(1, len(b) + 1)
        for sign, marker in ((b > FLOOR, MARKERS[i % len(MARKERS)]), (b < -FLOOR, 'x')):
            axes.plot(l[sign], b[sign].abs(), marker, color=colour(i), markersize=6, linestyle='none')
        axes.plot(l, torch.where(b.abs() > FLOOR, b.abs(), torch.nan), color=colour(i), linewidth=0.8, alpha=0.6)
    axes.set_yscale('log')
    axes.margins(y=0.15)
    axes.set_xticks(l.tolist())
    plain(axes, 'expansion, bₗ / (φ(1) − b₀) (crosses: negative)', 'degree l')


def draw_pulls(axes: Axes, profiles: Mapping[str, KernelProfile]) -> None:
    """Each degree's share of the root mean square gradient while points are uniform."""
    width = 0.8 / len(profiles)
    for i, p in enumerate(profiles.values()):
        sizes = torch.tensor(p.degree_gradients)
        share = (sizes / sizes.sum().clamp_min(1e-300)).clamp_min(1e-9)
        l = torch.arange(1, len(share) + 1)
        axes.bar(l + (i - (len(profiles) - 1) / 2) * width, share, width * 0.92, color=colour(i))
    axes.set_yscale('log')
    axes.set_ylim(1e-6, 1.5)
    axes.set_xticks(l.tolist())
    plain(axes, "who moves nearly uniform points: share of rms bₗ Pₗ'(t)", 'degree l')


def _shade_typical(axes: Axes, profile: KernelProfile) -> None:
    """Where 95 % of t lie for independent uniform points: t^2 has the law Beta(1/2, (q - 1)/2)."""
    reach = math.sqrt(betaincinv(0.5, (profile.q - 1) / 2, 0.95))
    axes.axvspan(-reach, reach, color='#BBBBBB', alpha=0.45, linewidth=0, label='95 % of pairs of uniform points')
