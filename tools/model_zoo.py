"""Write the tables of weights and models into model_zoo.md, from the metafiles and docs/compare.json.

python tools/model_zoo.py [--check]

--check: change nothing, end with 1 if the page is not what the metafiles say.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from mmkernel.zoo.catalogue import catalogue
from mmkernel.zoo.metafile import PROTOCOLS, SHORT, ModelInfo, WeightsFile, by_protocol
from mmkernel.zoo.pins import published

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = '<!-- weights: begin (tools/model_zoo.py) -->', '<!-- weights: end -->'
SILENT = ('ImageNet-1k', 'digits')  # data sets that go without saying


class Sources:
    """Numbers for the sources of figures, in the order of their first use."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def number(self, name: str) -> str:
        if name not in self.names:
            self.names.append(name)
        return f'[{self.names.index(name) + 1}]'

    def lines(self) -> list[str]:
        return [f'{self.number(name)} {name.replace("run here", "measured by us")}  ' for name in self.names]


def figures(info: ModelInfo, results: tuple[dict, ...], sources: Sources) -> str:
    """'70.3 / 89.7 linear; ... [1]': top-1 / top-5, the task, and the data set where it is not ImageNet."""
    cells = []
    for result in results:
        values = ' / '.join(str(value) for value in result['Metrics'].values())
        names = [name for name in result['Metrics'] if 'Accuracy' not in name]
        place = '' if result['Dataset'] in (*SILENT, info.metadata.get('Training Data')) else f' {result["Dataset"]}'
        task = SHORT.get(result['Task'], result['Task'].lower())
        cells.append(f'{values} {" ".join([*names, task])}{place}')
    marks = dict.fromkeys(sources.number(result['Source']) for result in results)
    return '; '.join(cells) + (f' {"".join(marks)}' if marks else '')


PUBLISHED = [f'{protocol}, published, %' for protocol in PROTOCOLS]


def published_figures(info: ModelInfo, sources: Sources) -> list[str]:
    """One cell for each column of PUBLISHED."""
    return [figures(info, results, sources) for results in by_protocol(info.published).values()]


def links(info: ModelInfo) -> str:
    return ', '.join(link(file) for file in info.files)


def link(file: WeightsFile) -> str:
    if file.parts:
        return f'{file.stage} ({", ".join(f"[part {i + 1}]({part.urls[0]})" for i, part in enumerate(file.parts))})'
    if file.urls[0].startswith('package:'):
        return f'{file.stage} (in the package)'
    return f'[{file.stage}]({file.urls[0]})' + ''.join(f', [mirror]({url})' for url in file.urls[1:])


def digests(info: ModelInfo) -> str:
    """Per file, in order."""
    known = [
        f'{published(file).split()[0]} `{(file.sha256 or file.md5)[:8]}`' if published(file) else 'pinned'
        for file in info.files
    ]
    return ', '.join(known if len(set(known)) > 1 else known[:1])


def table(titles: list[str], rows: list[list[str]]) -> list[str]:
    lines = ['| ' + ' | '.join(titles) + ' |', '|---' * len(titles) + '|']
    return [*lines, *('| ' + ' | '.join(row) + ' |' for row in rows), '']


def config(info: ModelInfo) -> str:
    if info.config is None:
        return 'download only'
    return f'[{info.config.removeprefix("configs/").removesuffix(".py")}]({info.config})'


def measured(page: dict) -> dict[str, str]:
    """config -> kNN with all labels, mean and standard deviation over seeds."""
    found = defaultdict(list)
    for row in page['rows']:
        found[f'configs/{row["name"]}.py'].append(row['scores']['knn']['all']['mean'])
    return {name: f'{np.mean(v):.1f} ± {np.std(v, ddof=1):.1f}' for name, v in found.items() if len(v) > 1}


def packaged(info: ModelInfo) -> bool:
    return bool(info.files and info.files[0].urls and info.files[0].urls[0].startswith('package:'))


def own(infos: list[ModelInfo], here: dict[str, str], sources: Sources) -> list[str]:
    """The table of the files that come with the package, then the notes on them."""
    run, seeds = 'measured by us (this file), %', 'measured by us: kNN, % (three seeds)'
    titles = ['name', 'config', 'epochs', run, seeds, 'bytes', 'hash', 'licence']
    found = [info for info in infos if packaged(info)]
    rows = [
        [f'`{info.name}`', config(info), str(info.metadata.get('Epochs', '')), figures(info, info.measured, sources),
         here.get(info.config, ''), str(info.files[0].size), digests(info), info.license]
        for info in found
    ]  # fmt: skip
    notes = [f'`{info.name}`: {info.note}  ' for info in found if info.note]
    return [*table(titles, rows), *notes, *([''] if notes else [])]


def section(infos: list[ModelInfo], here: dict[str, str]) -> str:
    sources = Sources()
    lines = ['### In the package', '', *own(infos, here, sources)] if any(map(packaged, infos)) else []
    weights = [
        [f'`{info.name}`', config(info), str(info.metadata.get('Epochs', '')), *published_figures(info, sources), links(info),
         digests(info), f'{info.license} {sources.number(info.source)}']
        for info in infos if info.files and not packaged(info)
    ]  # fmt: skip
    rest = [
        [f'`{info.name}`', config(info), info.metadata.get('Training Data', ''), str(info.metadata.get('Epochs', '')),
         *published_figures(info, sources), here.get(info.config, '')]
        for info in infos if not info.files
    ]  # fmt: skip
    lines += ['### With public weights', '']
    lines += table(
        ['name', 'config', 'epochs', *PUBLISHED, 'files', 'hash', 'licence and source of the files'], weights
    )
    lines += ['### To train', '']
    lines += table(['name', 'config', 'data', 'epochs', *PUBLISHED, 'measured by us: kNN, %'], rest)
    return '\n'.join([*lines, '### Sources', '', *sources.lines()]).rstrip()


def page_with(page: str, text: str) -> str:
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise RuntimeError(f'model_zoo.md must hold {BEGIN} and {END} once each; the tables go between them.')
    before, rest = page.split(BEGIN)
    return f'{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}'


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='change nothing, say whether the page is up to date')
    args = parser.parse_args(argv)
    path = ROOT / 'model_zoo.md'
    page = path.read_text(encoding='utf-8')
    compare = json.loads((ROOT / 'docs/compare.json').read_text(encoding='utf-8'))
    new = page_with(page, section(list(catalogue(ROOT).values()), measured(compare)))
    if args.check and new != page:
        sys.exit('model_zoo.md is not what the metafiles say: python tools/model_zoo.py')
    if not args.check:
        path.write_text(new, encoding='utf-8')
        print('written: model_zoo.md')


if __name__ == '__main__':
    main()
