"""``mmkernel data check PATH_OR_CONFIG``: look at the images before training on them."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.registry import DefaultScope
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Column, Table

from mmkernel.checks import check_numbers
from mmkernel.cli.given_data import source_config
from mmkernel.cli.options import Json, Options, Seed, options_of
from mmkernel.cli.terminal import console, print_json, say
from mmkernel.datasets import Source
from mmkernel.datasets.duplicates import duplicates
from mmkernel.datasets.survey import Survey, delivered
from mmkernel.datasets.training import as_source
from mmkernel.engine import load_config
from mmkernel.evaluation.features import usable_cores

SHOWN = 5  # names of a long list in the terminal; --json has all


def check(
    path: str,
    /,
    *,
    test: str | None = None,
    limit: int | None = None,
    seed: Seed = 0,
    workers: int = usable_cores(),
    seconds: float = 5.0,
    json: Json = False,
    cfg_options: Options = None,
) -> None:
    """Numbers, sizes, channels, mean and std, unreadable files, duplicates, speed.

    The exit code is 1 if an image cannot be read, or if one of the test is also in another set.

    Args:
        path: a folder, a pack, a config, or a source in quotes: "dict(type='ImageFolder', root='/my/scans')".
        test: the images to be tested on, in the same forms; of a config: evaluation.test.
        limit: look at so many random images of each set; default: at all.
        workers: processes that read.
        seconds: time the loader of a config so long; 0: not.
    """
    check_numbers(whole=True, none=True, **{'--limit': limit})
    check_numbers(zero=True, **{'--workers': workers, '--seconds': seconds})
    cfg = load_config(path, options_of(cfg_options)) if path.endswith('.py') else None
    sources = {'train': source_of(path)} if cfg is None else sources_of_config(cfg)
    sources |= {'test': source_of(test)} if test else {}
    surveys: dict[str, Survey] = {}
    for name, source in sources.items():
        surveys[name] = Survey(source, limit, seed, workers, lambda b, n, name=name: bar(b, n, name))
        if surveys[name].stopped:
            break
    stopped = any(survey.stopped for survey in surveys.values())
    found = dict(sets={name: survey.facts() for name, survey in surveys.items()}, duplicates=duplicates(surveys))
    if cfg is not None and seconds and not stopped:
        with DefaultScope.overwrite_default_scope('mmkernel'):
            found['loader'] = dict(delivered(cfg.train_dataloader, seconds), cores=usable_cores())
    if json:
        print_json(found)
    else:
        show(found, seed)
    leaks = any('test' in pair.split(' and ') for pair in found['duplicates']['between'])
    if stopped or leaks or any(facts['unreadable'] for facts in found['sets'].values()):
        sys.exit(130 if stopped else 1)


def source_of(text: str) -> Source:
    """The source that a command line names: see ``source_config``."""
    return as_source(source_config(text))


def sources_of_config(cfg: Any) -> dict[str, Source]:
    """{'train': of the pretraining, 'labelled': evaluation.train where it is another, 'test': evaluation.test}."""
    dataset, part = cfg.train_dataloader.dataset, cfg.get('evaluation') or {}
    configs = dict(train=dataset.get('source', dataset), labelled=part.get('train'), test=part.get('test'))
    if configs['labelled'] == configs['train']:
        del configs['labelled']
    return {name: as_source(given) for name, given in configs.items() if given is not None}


def bar(batches: Iterable, total: int, name: str) -> Iterable:
    """The same batches, with a bar where a person sees it."""
    hidden = not sys.stderr.isatty()
    return track(batches, name, total=total, console=Console(stderr=True), transient=True, disable=hidden)


def show(found: Mapping[str, Any], seed: int) -> None:
    """The same for a person."""
    table = Table(
        Column('', overflow='fold'), *(Column(name, overflow='fold') for name in found['sets']), box=SIMPLE_HEAD
    )
    columns = [lines(facts, seed) for facts in found['sets'].values()]
    for title in columns[0]:
        table.add_row(title, *(escape(column[title]) for column in columns))
    console.print(table)
    for name, facts in found['sets'].items():
        for c, of in facts['channels'].items() if name != 'test' else ():
            say(
                f'{name}: data_preprocessor = dict(mean={of["mean"]}, std={of["std"]})  # of {of["images"]:,} images, {c} channels'
            )
        listed(f'{name}: unreadable', [short(*each) for each in facts['unreadable'].items()])
    for name, groups in found['duplicates']['within'].items():
        listed(f'{name}: groups of images with equal pixels', [' = '.join(group) for group in groups])
    for pair, groups in found['duplicates']['between'].items():
        listed(f'in {pair}: images with equal pixels', [' = '.join(a[:2] + b[:2]) for a, b in groups], 'red')
    whole = all(facts['looked_at'] == facts['images'] for facts in found['sets'].values())
    if not any([*found['duplicates']['within'].values(), found['duplicates']['between']]):
        say('no two images have equal pixels' + ('' if whole else ' among those looked at'))
    if loader := found.get('loader'):
        rate = loader.get('images_per_second')
        text = f'{rate:,.0f} images per second' if rate else f'not measured ({loader.get("error", "too few batches")})'
        say(
            f'loader of the config: {escape(text)}; {loader["workers"]} workers, {loader["cores"]} cores, '
            f'{loader["batches"]:,} batches of {loader["batch_size"]} in an epoch of one process'
        )


def lines(facts: Mapping[str, Any], seed: int) -> dict[str, str]:
    """A column of the table."""
    all_, labels = facts['looked_at'] == facts['images'], facts['labels']
    sizes = [f'{s["width"]} x {s["height"]} ({s["images"]:,})' for s in facts['sizes'][:3]]
    part = f'{facts["looked_at"]:,}, ' + ('stopped early' if facts['stopped'] else f'random, seed {seed}')
    classes = f'{labels["classes_with_images"]} classes of {labels["smallest"]:,} to {labels["largest"]:,} images'
    return {
        'source': facts['source'],
        'images': f'{facts["images"]:,}',
        'looked at': 'all' if all_ else part,
        'endings': ', '.join(f'{ending} {count:,}' for ending, count in facts['found'].items()) or 'no files',
        'other files': ', '.join(f'{ending} {count:,}' for ending, count in [*facts['skipped'].items()][:8]) or 'none',
        'labels': (classes if labels['largest'] else 'none')
        + (f', {labels["unlabelled"]:,} without' if labels['largest'] and labels['unlabelled'] else ''),
        **{
            f'{side}: min / median / max': f'{of["min"]} / {of["median"]:g} / {of["max"]}'
            for side in ('width', 'height') for of in [facts['sides'].get(side, dict(min='-', median=float('nan'), max='-'))]
        },
        'most frequent sizes': ', '.join(sizes) or 'none',
        'channels': ', '.join(f'{c} ({of["images"]:,})' for c, of in facts['channels'].items()) or 'none',
        'unreadable': f'{len(facts["unreadable"]):,}',
        'read per second': f'{facts["images_per_second"]:,.0f} (decoding, no views)',
    }  # fmt: skip


def short(name: str, error: str) -> str:
    """A name and the beginning of its error, which names it too."""
    return f'{name}: {error.removeprefix(name).strip()[:90]}'


def listed(title: str, names: list[str], style: str = 'yellow') -> None:
    if names:
        say(f'[{style}]{title}: {len(names):,}[/]')
        for name in names[:SHOWN]:
            say(f'  {escape(name)}')
        if len(names) > SHOWN:
            say(f'  and {len(names) - SHOWN:,} more: --json lists them')
