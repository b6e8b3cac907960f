"""The page of a run: what it found in words, curves, what was changed, views, embeddings, neighbours, benchmarks, config."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from mmkernel.evaluation.diagnosis import Diagnosis
from mmkernel.evaluation.sampled_images import Cloud
from mmkernel.visualization.curves import Band, Curve, run_curves
from mmkernel.visualization.diagnosis_page import draw_cloud, draw_images, verdict_html
from mmkernel.visualization.html_page import code, facts, html_page, picture, rich_table, table, text, write_page
from mmkernel.visualization.style import new_figure


@dataclass
class RunReport:
    """What is known of a run; each part may be missing, and then ``missing`` may say why."""

    name: str
    about: Mapping[str, Any]  # facts for the head of the page
    curves: Mapping[str, Curve] = field(default_factory=dict)
    bands: Mapping[str, Mapping[str, Band]] = field(default_factory=dict)  # legend -> quantity -> band
    recipe: str = ''  # that the config is compared with
    changes: Sequence[tuple[str, str, str]] = ()  # (key, of the recipe, of this run)
    views: Path | None = None  # a PNG
    diagnosis: Diagnosis | None = None
    cloud: Cloud | None = None
    source: Any = None  # of the images of the cloud
    tables: Sequence[tuple[str, Table]] = ()  # (file, what it holds)
    commands: Mapping[str, str] = field(default_factory=dict)  # what one may do next -> command
    config: str = ''
    missing: Mapping[str, str] = field(default_factory=dict)  # heading -> reason


def report_page(report: RunReport, path: str | Path) -> Path:
    """Write the page of ``report``: one file, nothing beside it, no network."""
    parts = dict(
        Diagnosis=_diagnosis(report),
        Curves=_curves(report),
        Benchmarks=''.join(rich_table(found) + f'<p class="soft">{text(file)}</p>' for file, found in report.tables),
        Changes=_changes(report),
        Views=_views(report),
        Embeddings=_embeddings(report),
        Neighbours=_neighbours(report),
        Next=''.join(f'<p>{text(words)}</p><pre>{text(command)}</pre>' for words, command in report.commands.items()),
        Config=f'<details><summary>the whole config, resolved</summary><pre>{text(report.config)}</pre></details>'
        if report.config
        else '',
    )
    for name, reason in report.missing.items():
        parts[name] = parts[name] or f'<p class="soft">{text(reason)}</p>'
    there = {name: part for name, part in parts.items() if part}
    return write_page(path, html_page(report.name, facts(report.about), there, 'One file that needs no network.'))


def _diagnosis(report: RunReport) -> str:
    return verdict_html(report.diagnosis) if report.diagnosis else ''


def _curves(report: RunReport) -> str:
    if not report.curves:
        return ''
    grey = f' Grey: {", ".join(report.bands)}, mean (dashed) and range.' if report.bands else ''
    figure = run_curves({'this run': report.curves}, bands=report.bands)
    titles = ', '.join(axes.get_title(loc='left') for axes in figure.axes)
    return picture(figure, f'curves of this run: {titles}', f'Starts of the same run are joined.{grey}')


def _changes(report: RunReport) -> str:
    if not report.recipe:
        return ''
    if not report.changes:
        return f'<p>None: this is {code(report.recipe)} as it comes.</p>'
    rows = [(code(key), code(old), code(new)) for key, old, new in report.changes]
    head = ('key', 'recipe', 'this run')
    return f'<p>What this run has otherwise than {code(report.recipe)}:</p>' + table(head, rows, words=3)


def _views(report: RunReport) -> str:
    if report.views is None:
        return ''
    return picture(
        report.views, 'views of the first images', 'The first images of the first batch as the model got them.'
    )


def _embeddings(report: RunReport) -> str:
    if report.cloud is None or report.diagnosis is None:
        return ''
    figure = new_figure(12.5, 3.9)
    draw_cloud(figure, report.diagnosis, report.cloud)
    found = report.diagnosis.statistics
    caption = f'{found.images:,} images, embeddings of width {found.width:,}. Coloured points: runs measured with this package.'
    return picture(figure, 'covariance spectrum, alignment and uniformity, MMD by degree', caption)


def _neighbours(report: RunReport) -> str:
    if report.cloud is None:
        return ''
    figure: Figure = new_figure(12.5, 4.1)
    draw_images(figure, report.cloud, report.source)
    caption = 'By backbone features, which downstream tasks get. Labels, where there are any, only colour them.'
    return picture(figure, 'images and their nearest neighbours, and a map of all images', caption, kind='png')
