"""``mmkernel benchmark NAME ...``: the scripts of tools/benchmarks, from a checkout or from inside an installed package."""

from __future__ import annotations

import difflib
import runpy
import sys
from pathlib import Path

from mmkernel.zoo.catalogue import root


def main(argv: list[str], prog: str) -> None:
    folder = root() / 'tools' / 'benchmarks'
    scripts = {
        path.stem: path for path in sorted(folder.glob('*.py')) if '__main__' in path.read_text(encoding='utf-8')
    }
    if not argv or argv[0] in ('-h', '--help'):
        print('\n'.join([f'{prog} NAME ...', *(f'  {name:<18} {_summary(path)}' for name, path in scripts.items())]))
        return
    name, *words = argv
    if name not in scripts:
        near = difflib.get_close_matches(name, scripts, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f'There are: {", ".join(scripts)}.'
        sys.exit(f"{prog}: no benchmark is called '{name}'. {hint}")
    sys.path.insert(0, str(folder))
    sys.argv = [str(scripts[name]), *words]
    runpy.run_path(str(scripts[name]), run_name='__main__')


def _summary(path: Path) -> str:
    return path.read_text(encoding='utf-8').splitlines()[0].strip('"')
