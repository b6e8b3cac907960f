"""``mmkernel zoo list | info | download | verify | clean``: models by name, and their files in the cache."""

import sys
from dataclasses import asdict
from typing import Annotated

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from mmkernel.cli.options import Flag, Json
from mmkernel.cli.terminal import Parameter, console, print_json, say
from mmkernel.home import home
from mmkernel.zoo.catalogue import list_models, model_info, path_of, root
from mmkernel.zoo.download import download
from mmkernel.zoo.metafile import FILE_STAGES, PROTOCOLS, by_protocol
from mmkernel.zoo.pins import clean, files_here, published, size_of, verify

COLUMNS = PROTOCOLS[:-1]  # a column of top-1 for each


Stage = Annotated[str | None, Parameter(choices=tuple(FILE_STAGES))]


def show_list(pattern: str = '*', /, *, pretrained: Flag = False, json: Json = False) -> None:
    """Names that match a pattern, and what is published for them.

    Args:
        pattern: a shell pattern in quotes, '*r50*'.
        pretrained: only those with public weights.
    """
    names = list_models(pattern, pretrained)
    if not names:
        raise ValueError(f"no name matches '{pattern}'; 'mmkernel zoo list' shows all.")
    if json:
        print_json([asdict(model_info(name)) for name in names])
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column('name', no_wrap=True, min_width=max(map(len, names)))
    table.add_column('network')  # the one that may be folded
    for title in ('epochs', *COLUMNS, 'weights'):
        table.add_column(title.replace('-', '-\n'), justify='right', no_wrap=True, min_width=len(title.split('-')[-1]))
    for info in map(model_info, names):
        found = by_protocol(info.published)
        top1 = [[result['Metrics'].get('Top 1 Accuracy') for result in found[protocol]] for protocol in COLUMNS]
        best = [next((str(value) for value in values if value is not None), '') for values in top1]
        cells = [info.metadata.get('Architecture', ''), str(info.metadata.get('Epochs', '')), *best]
        state = ('[green]here[/]' if files_here(info) else 'public') if info.files else ''
        table.add_row(info.name, *map(escape, cells), state)
    console.print(table)
    console.print(f'{len(names)} models; published top-1 in percent, on what and by whom: mmkernel zoo info NAME')


def show_info(name: str, /, *, json: Json = False) -> None:
    """Config, published results with their sources, files."""
    info = model_info(name)
    if json:
        print_json(asdict(info))
        return
    lines = [('config', f'{root() / info.config}' if info.config else 'none'), ('paper', info.paper.get('Title', ''))]
    lines += [('with', f'{key} = {value}') for key, value in info.config_options.items()]
    lines += [(key.lower(), str(value)) for key, value in info.metadata.items()]
    for result in (*info.published, *info.measured):
        metrics = ', '.join(f'{name} {value}' for name, value in result['Metrics'].items())
        source = str(result['Source']).replace('run here', 'measured by us')  # as files of earlier versions say
        word = 'measured by us' if result in info.measured else 'published'
        lines.append((word, f'{metrics} ({result["Task"]}, {result["Dataset"]}; source: {source})'))
    lines += [('weights', f'source: {info.source}; licence: {info.license}; {info.status}')] if info.files else []
    lines += [('note', info.note)] if info.note else []
    console.print(f'[bold]{info.name}[/]')
    for file in info.files:
        path, known = path_of(info, file), published(file)
        digest = f'{known} {file.sha256 or file.md5}' if known else 'sha256 unknown: pinned on first use'
        here = path.is_file()
        size = f'{(file.size or size_of(path)) / 1e6:.1f} MB' if file.size or here else 'size unknown'
        lines.append((file.stage, f'{path} ({"here" if here else "not here"}), {size}, {digest}'))
        lines += [('', url) for part in file.parts or (file,) for url in part.urls]
    for key, value in lines:
        say(f'  {key:<14} {escape(value)}')


def fetch(names: list[str], /, *, stage: Stage = None) -> None:
    """Fetch files and check them.

    Args:
        names: of the zoo.
        stage: which file; default: the first of the row.
    """
    for info in [model_info(name) for name in names]:
        if not info.files:
            raise ValueError(f"no weights of '{info.name}' are public.")
        path = download(info, stage or info.files[0].stage)
        say(f'{info.name}: {escape(str(path))} ({size_of(path) / 1e6:.1f} MB)')


def check(names: list[str] | None = None, /, *, json: Json = False) -> None:
    """Read every byte of what is here and compare it with what is published.

    Args:
        names: of the zoo; default: all that is here.
    """
    found = verify(names or [])
    if json:
        print_json([asdict(verdict) for verdict in found])
    for verdict in found:
        word = {True: '[green]fine[/]', False: '[red]WRONG[/]', None: '[yellow]unknown[/]'}[verdict.fine]
        say(f'{word} {verdict.name}: {escape(str(verdict.path))}: {escape(verdict.why)}')
    console.print(f'{len(found)} files of the package and of {home()}.')
    if any(verdict.fine is False for verdict in found):
        sys.exit(1)


def remove(names: list[str] | None = None, /, *, leftovers: Flag = False) -> None:
    """Remove files from the cache.

    Args:
        names: of the zoo; default: all.
        leftovers: only what broken downloads left.
    """
    size, found = clean(names or [], leftovers)
    for path in found:
        say(f'removed {escape(str(path))}')
    console.print(f'{size / 1e6:.1f} MB freed in {home()}; hashes of first use are kept in pins.json.')
