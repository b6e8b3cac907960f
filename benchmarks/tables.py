"""Results of the benchmarks as tables: on the screen, and in benchmarks/README.md from benchmarks/results/*.json.

python benchmarks/tables.py            # rewrites the part of benchmarks/README.md between the two marks
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

FOLDER = Path(__file__).parent
MARKS = ('<!-- results: begin -->', '<!-- results: end -->')
COLUMNS = ('case', 'form', 'time', 'ratio', 'goal', 'peak memory', 'ratio', 'goal')


def table_rows(row: dict) -> list[list[str]]:
    """One line per form of a case: times, peaks, and beside ``ours`` its ratios to the textbook form and the goals."""
    lines = []
    textbook = row['forms'].get('textbook', {})
    for form, figures in row['forms'].items():
        cells = [row['case'] if not lines else '', form]
        for word, key, show in (('time', 'seconds', seconds_text), ('memory', 'peak_bytes', bytes_text)):
            value, base = figures.get(key), textbook.get(key)
            cells.append('' if value is None else show(value))
            cells.append(f'{base / value:.2f}' if value and base and form != 'textbook' else '')
            cells.append(verdict(row[f'{word}_ratio'], row[f'{word}_goal']) if form == 'ours' else '')
            if form == 'ours' and key == 'peak_bytes' and value and row.get('memory_limit'):
                limit = row['memory_limit']
                cells[-1] = f'{bytes_text(limit)} {"hit" if value <= limit else "miss"}'
        lines.append(cells)
    lines += [['', form, reason, '', '', '', '', ''] for form, reason in row['skipped'].items()]
    return lines


def verdict(ratio: float | None, goal: float | None) -> str:
    """'2.5 hit' or '2.5 miss', at the digits that are shown; '' without a goal; '2.5 ?' where one side was not measured."""
    if goal is None:
        return ''
    return f'{goal:g} ?' if ratio is None else f'{goal:g} {"hit" if round(ratio, 2) >= goal else "miss"}'


def seconds_text(seconds: float) -> str:
    return f'{seconds:.2f} s' if seconds >= 1 else f'{1000 * seconds:.3g} ms'


def bytes_text(size: float) -> str:
    return f'{size / 2**30:.2f} GiB' if size >= 2**30 else f'{size / 2**20:.1f} MiB'


def lines_of(result: dict) -> tuple[list[str], list[list[str]]]:
    """Header and lines: a benchmark's own, or those of its cases."""
    if 'lines' in result:
        return result['columns'], result['lines']
    return list(COLUMNS), [line for row in result['rows'] for line in table_rows(row)]


def print_table(result: dict) -> None:
    table = Table(title=result['benchmark'])
    columns, lines = lines_of(result)
    for i, name in enumerate(columns):
        table.add_column(name, justify='left' if i < 2 else 'right', no_wrap=i < 2)
    for line in lines:
        table.add_row(*line)
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def markdown(result: dict) -> str:
    """A section: what was run where, and the table."""
    columns, cells = lines_of(result)
    versions = ', '.join(f'{name} {number}' for name, number in result['versions'].items())
    where = [result['hardware'], f'{result["threads"]} thread(s)' if result.get('threads') else '']
    where.append(result.get('clock', ''))
    when = [result['date'], f'commit {result["commit"]}' if result.get('commit') else '', result.get('status', '')]
    where, when = ([text for text in texts if text] for texts in (where, when))
    lines = [
        f'### {result["benchmark"]}',
        '',
        f'`{result["command"]}`: {", ".join(where)}; {versions}; {", ".join(when)}.'
        + (f' {result["setting"]}' if 'setting' in result else ''),
        '',
        '| ' + ' | '.join(columns) + ' |',
        '|' + '---|' * 2 + '---:|' * (len(columns) - 2),
    ]
    return '\n'.join([*lines, *('| ' + ' | '.join(line) + ' |' for line in cells), ''])


def main(readme: Path = FOLDER / 'README.md', results: Path = FOLDER / 'results') -> None:
    files = sorted(path for path in results.glob('*.json') if path.stem not in ('sweep', 'launches'))
    sections = [markdown(json.loads(path.read_text())) for path in files]
    before, rest = readme.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    readme.write_text('\n'.join([before + MARKS[0], '', *sections, MARKS[1] + after]))


if __name__ == '__main__':
    main()
