"""Diagnosis of an embedding cloud: healthy, doubtful or collapsed, by measured thresholds, with cause and remedy."""

import json
import math
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from mmkernel.evaluation.cloud import RIVALS, YARDSTICK, CloudStatistics, cloud_statistics
from mmkernel.evaluation.remedies import COLLAPSED, DOUBTFUL, HEALTHY, remedy
from mmkernel.evaluation.sampled_images import Cloud
from mmkernel.kernels import Kernel
from mmkernel.kernels.radial import radial_parts


@dataclass(frozen=True)
class Threshold:
    """Of a statistic that is small after a collapse: its largest value of collapsed runs, its smallest of healthy ones."""

    collapsed: float
    healthy: float

    @property
    def cut(self) -> float:
        """Their geometric mean: below it a run is nearer to the collapsed ones."""
        return (self.collapsed * self.healthy) ** 0.5


@dataclass(frozen=True)
class Diagnosis:
    """What ``judge`` found."""

    state: str  # HEALTHY, DOUBTFUL or COLLAPSED
    verdict: str  # one sentence with the likely cause
    findings: list[str]  # one sentence per statistic
    statistics: CloudStatistics
    kernel: str  # that MMD^2 was taken under
    about: dict[str, Any] = field(default_factory=dict)  # where the weights come from

    def __str__(self) -> str:
        return '\n'.join([f'{self.state}: {self.verdict}', *(f'  {finding}' for finding in self.findings)])


@cache
def reference() -> dict[str, Any]:
    """``dict(thresholds={statistic: Threshold}, runs=[...])``: measured by tools/diagnosis_thresholds.py on small runs."""
    content = json.loads(Path(__file__).with_name('diagnosis_reference.json').read_text())
    return {**content, 'thresholds': {name: Threshold(**t) for name, t in content['thresholds'].items()}}


def diagnose_cloud(cloud: Cloud, model: nn.Module | None = None) -> Diagnosis:
    """The verdict on embeddings; ``model`` (not run) tells the kernel and the likely cause."""
    kernel = run_kernel(model)
    return judge(cloud_statistics(cloud.z, kernel or YARDSTICK, cloud.views), model)


def judge(found: CloudStatistics, model: nn.Module | None = None) -> Diagnosis:
    """Collapsed: the cloud is nearly a line, or nearly a point. Doubtful: a statistic is worse than in any healthy run.

    Without second views only a cloud without variance is called a point: some objectives do not move the mean. Where width
    or number of images is below the rank of healthy runs, the rank is not judged, and few images are doubtful.
    """
    limits = reference()['thresholds']
    values = dict(std=found.std)
    if min(found.width, found.images - 1) >= limits['rank'].healthy:
        values['rank'] = found.rank
    if found.retrieval is not None:
        values['retrieval'] = found.retrieval
    low = [name for name, value in values.items() if value < limits[name].healthy]
    # an objective that ignores the mean may keep embeddings close together: it is a point only if views are lost too
    lost = found.dimensions == 0 or values.get('retrieval', 1.0) < limits['retrieval'].cut
    gone = [n for n in ('std', 'rank') if n in values and values[n] < limits[n].cut and (lost or n == 'rank')]
    state = COLLAPSED if gone else DOUBTFUL if low else HEALTHY
    if state == HEALTHY and found.images - 1 < limits['rank'].healthy:
        state, verdict = DOUBTFUL, f'{found.images} images are too few to tell: take some hundreds (--images).'
    elif state != HEALTHY:
        ill = (gone or low)[0]
        verdict = f'{_symptom(ill, found, state)}, {remedy(ill, state, model)}.'
    else:
        verdict = (
            f'the embedding uses {found.rank:.1f} dimensions (effective rank) of {found.width} and is spread like the '
            f'measured runs that learned{"" if "rank" in values else ", as far as so small a width can tell"}.'
        )
    kernel = run_kernel(model)
    name = f'{YARDSTICK} (a yardstick: the run has no kernel)' if kernel is None else f'{kernel}'
    return Diagnosis(state, verdict, _findings(found, name), found, name)


def _symptom(statistic: str, found: CloudStatistics, state: str) -> str:
    if statistic == 'retrieval':
        share = f'only {100 * found.retrieval:.0f} % of the images are nearest to their own second view'
        return f'{share}: views do not agree'
    if statistic == 'std':
        size = f'all embeddings point nearly the same way (mean cosine {found.moments[0]:.2f})'
        return f'{size}: complete collapse' if state == COLLAPSED else size
    size = f'99 % of the variance in {found.dimensions} of {found.width} dimensions, effective rank {found.rank:.1f}'
    return f'{size}: {"dimensional collapse" if state == COLLAPSED else "few dimensions are in use"}'


def _findings(found: CloudStatistics, kernel: str) -> list[str]:
    lines = [
        f'{found.images} images, width {found.width}',
        f'std {found.std:.2f} (sqrt(q) times that per dimension; 1: uniform, 0: a point), length of the mean {found.resultant:.2f}',
        f'effective rank {found.rank:.1f} of {found.width}; 99 % of the variance in {found.dimensions} dimensions, '
        f'{100 * found.top_share:.0f} % in the first',
    ]
    if found.rankme is not None:
        lines[-1] += f'; RankMe {found.rankme:.1f} (of singular values, where rank is of variances)'
    if found.alignment is not None:
        rivals = min(RIVALS, found.images)
        lines.append(
            f'two views of an image: mean squared distance {found.alignment:.2f} (unrelated points: 2); '
            f'{100 * found.retrieval:.0f} % are nearest to each other among {rivals} images (chance: {100 / rivals:.2g} %)'
        )
    lines.append(f'uniformity {found.uniformity:.2f} (uniform: -4 at large widths, a point: 0)')
    if not math.isnan(found.mmd2_sd):
        lines.append(
            f'MMD^2 to uniform {found.mmd2:.4g} under {kernel}: {100 * found.mmd2_share:.1f} % of a point, '
            f'{found.mmd2 / found.mmd2_sd:,.0f} sd beyond the null band 0 ± {found.mmd2_sd:.2g} of {found.images} uniform points'
        )
    return lines


def run_kernel(model: nn.Module | None) -> Kernel | None:
    """The kernel that the head of ``model`` trains with, on the sphere; None if it has none.

    One that is compared with N(0, I) is taken on the sphere where N(0, I) lies: statistics of a cloud are of its directions.
    """
    head = getattr(model, 'head', None)
    for part in () if head is None else head.modules():
        for kernel in (k for k in part.children() if isinstance(k, Kernel)):
            to_normal = getattr(part, 'target', None) == 'normal' and radial_parts(kernel)
            return kernel.restrict('sqrt(q)') if to_normal else kernel
    return None
