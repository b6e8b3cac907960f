"""``mmkernel plot RUN ...``: curves of runs over one another, and the report of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from mmkernel import evaluation
from mmkernel.cli.diagnose import find_config
from mmkernel.cli.options import ConfigFile, Device, Flag, Json, Out, usable_device
from mmkernel.cli.terminal import Parameter, console, print_json, say
from mmkernel.engine import latest_checkpoint, load_weights, read_checkpoint, weights_of
from mmkernel.engine.config_file import recipe_named, recipes_of
from mmkernel.engine.run_report import bands_of, write_report
from mmkernel.visualization.curves import Band, Curve, curves_of, panels_of, run_curves
from mmkernel.visualization.html_page import html_page, picture, rich_table, write_page
from mmkernel.writing import set_aside, writable
from mmkernel.zoo.files import meta_of
from mmkernel.zoo.shard_files import with_whole_weights

Bands = Mapping[str, Mapping[str, Band]]
SUFFIXES = ('.png', '.pdf', '.svg', '.html')


def plot(
    runs: Annotated[list[str], Parameter(metavar='RUN')],
    /,
    *,
    keys: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    band: bool = True,
    recipe: str | None = None,
    report: Flag = False,
    images: int = 1000,
    out: Out = None,
    json: Json = False,
    device: Device = 'auto',
    config: ConfigFile = None,
) -> None:
    """Loss, its parts, rank, kNN and waiting share of runs over one another, before the curve of the shipped recipe.

    Args:
        runs: work folders, or label=FOLDER. The starts of a run that was resumed are joined.
        keys: the scalars to show; default: loss, its parts, and what there is of rank, spread, accuracy, waiting.
        band: show mean and range over seeds of the shipped recipe, where they were measured.
        recipe: the recipe to compare with; default: the one that the config of a run comes from.
        report: write report.html of the run instead: verdict, curves, changes, views, map, neighbours, benchmarks.
        images: with --report, look at so many at most.
        out: a .png, .pdf, .svg or .html; default: curves.png (of one run in its folder), or report.html in its folder.
    """
    folders = folders_of(runs)
    named = named_recipe(recipe)
    if report:
        if len(folders) > 1 or keys or json:
            raise ValueError(
                '--report is of one run, and shows what there is: leave the others, --keys and --json out.'
            )
        write_it(*folders.values(), out, named, images, device, config)
        return
    path = out or (next(iter(folders.values())) if len(folders) == 1 else Path()) / 'curves.png'
    if path.suffix not in SUFFIXES:
        raise ValueError(f"--out '{path}' ends in none of {', '.join(SUFFIXES)}.")
    writable(path, 'curves.png')
    curves = {name: curves_of(folder) for name, folder in folders.items()}
    recipes = [named] if named else [recipe_named(folder / 'config.py') for folder in folders.values()]
    bands = {name: found for each in recipes for name, found in bands_of(each).items()} if band else {}
    keys = keys or panels_of(curves.values())
    figure = run_curves(curves, keys, bands)  # an error before anything is set aside
    last = last_values(curves, keys, bands)
    console.print(last)
    if json:
        print_json(numbers(folders, curves, keys, bands))
    if path.exists():
        set_aside(path)
    if path.suffix == '.html':
        last.title = None
        drawn = picture(figure, f'curves of {", ".join(curves)}: {", ".join(keys)}', legend_of(bands))
        write_page(path, html_page(', '.join(curves), '', {'Curves': drawn, 'Last values': rich_table(last)}))
    else:
        figure.savefig(path, dpi=150)
    say(f'written: {path}')


def folders_of(runs: list[str]) -> dict[str, Path]:
    """{label: folder} of ``FOLDER`` and ``label=FOLDER``; without a label the name, with its parent's where that tells little."""
    pairs = []
    for run in runs:
        label, equals, folder = run.partition('=')
        if Path(run).exists() or not equals:
            label, folder = '', run
        if not Path(folder).is_dir():
            raise FileNotFoundError(
                f"there is no folder '{folder}'; expected the work folder of a run, or label=FOLDER."
            )
        pairs.append((label, Path(folder)))
    names = [label or folder.resolve().name for label, folder in pairs]
    alike = {name for name in names if names.count(name) > 1 or name.isdecimal()}
    names = [
        f'{folder.resolve().parent.name}/{name}' if name in alike and not label else name
        for name, (label, folder) in zip(names, pairs, strict=True)
    ]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two runs are called '{twice[0]}': give them labels, one={pairs[0][1]} two={pairs[1][1]}.")
    return dict(zip(names, (folder for _, folder in pairs), strict=True))


def named_recipe(recipe: str | None) -> str:
    """'configs/METHOD/NAME.py' of what --recipe says, which may be a config of the user's own."""
    if recipe is None:
        return ''
    if not (names := recipes_of(recipe)):
        raise FileNotFoundError(
            f"--recipe '{recipe}' is not a recipe of the package, such as configs/kernels/digits_rbf.py."
        )
    return names[0]


def legend_of(bands: Bands) -> str:
    return f'Band: {", ".join(bands)}, mean (dashed) and range.' if bands else ''


def last_values(curves: Mapping[str, Mapping[str, Curve]], keys: list[str], bands: Bands) -> Table:
    """A line per quantity, a column per run and per recipe."""
    table = Table(title='last values', title_justify='left', box=SIMPLE_HEAD, pad_edge=False)
    for position, name in enumerate(['', *curves, *bands]):
        table.add_column(name, justify='right' if position else 'left')
    for key in keys:
        ends = [run[key].values[-1] if key in run else None for run in curves.values()]
        ends += [measured[key].mean[-1] if key in measured else None for measured in bands.values()]
        table.add_row(key, *('' if value is None else f'{value:.4g}' for value in ends))
    return table


def numbers(folders: Mapping[str, Path], curves: Mapping, keys: list[str], bands: Bands) -> dict[str, Any]:
    """What the figure shows, for --json."""
    of = lambda curve: {part: plain_list(values) for part, values in curve._asdict().items()}  # noqa: E731
    return dict(
        runs={
            name: dict(folder=str(folders[name]), scalars={key: of(run[key]) for key in keys if key in run})
            for name, run in curves.items()
        },
        bands={name: {key: of(measured[key]) for key in keys if key in measured} for name, measured in bands.items()},
    )


def plain_list(values: np.ndarray) -> list[float | None]:
    """JSON has no NaN and no infinity: null."""
    return [float(x) if np.isfinite(x) else None for x in values]


def write_it(folder: Path, out: Path | None, recipe: str, images: int, device: str, config: str | None) -> None:
    """The report of a run, from its furthest checkpoint."""
    if out is not None and out.suffix != '.html':
        raise ValueError(f"--out '{out}': a report is one .html file.")
    path = latest_checkpoint(folder)
    if path is None:
        raise FileNotFoundError(f"'{folder}' holds no checkpoint of a run (epoch_N.pth) to report on.")
    content = with_whole_weights(read_checkpoint(path), path)
    cfg = find_config(path, content, config)
    model = evaluation.untrained_encoder(cfg)
    load_weights(model, weights_of(content), source=str(path))
    model.to(usable_device(device))
    say(f'written: {write_report(folder, cfg, model, meta_of(content), images, out, recipe)}')
