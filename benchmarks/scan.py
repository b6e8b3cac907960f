"""What the start of a run costs on a folder of many files: ``ImageFolder``, a list of its files, the first order of an epoch.

python benchmarks/scan.py --images 1000000 --folders 1000
python benchmarks/scan.py --images 10000000 --folders 10000 --names   (the index alone is made, in place of ten million files)

Empty files are made in a temporary folder. Each start is a process of its own: CPU time, time, and the growth of its peak of
resident memory, pages of the mapped index among it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mmkernel.datasets import EpochSampler, ImageFolder, ImageList, scanned
from mmkernel.datasets.folders import EXTENSIONS
from mmkernel.datasets.kept_arrays import kept
from mmkernel.datasets.strings import Strings
from mmkernel.datasets.training import as_source


def name(folder: int, k: int) -> str:
    return f'n{folder:08d}_{k * 7919 % 1000003}.JPEG'


def make_files(root: Path, folders: int, each: int) -> None:
    for folder in range(folders):
        place = root / f'n{folder:08d}'
        place.mkdir()
        for k in range(each):
            (place / name(folder, k)).touch()


def make_index(root: Path, folders: int, each: int) -> None:
    """Of the files that ``make_files`` would make, beside empty folders."""
    inside = [f'n{k:08d}/' for k in range(folders)]
    for folder in inside:
        (root / folder).mkdir()
    scanned.make_folder(str(root))
    parts = [Strings.of(sorted(name(folder, k) for k in range(each))) for folder in range(folders)]
    names, texts = Strings.joined(parts), Strings.of(['', *inside])
    about = json.dumps(dict(left_out=[], skipped={})).encode()
    arrays = dict(
        names=names.data, ends=names.offsets, folder=np.repeat(np.arange(1, folders + 1, dtype=np.int32), each),
        folders=texts.data, folder_ends=texts.offsets, about=np.frombuffer(about, np.uint8),
        changed=np.array([os.stat(root / folder).st_mtime_ns for folder in texts]),
    )  # fmt: skip
    given = dict(layout=scanned.LAYOUT, suffixes=list(EXTENSIONS))
    kept(scanned.index_places(str(root), given), given, lambda: arrays)


def peak() -> float:
    """The peak of resident memory, in MB."""
    return int(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1]) / 1024


def start(root: str, names: str | None) -> dict[str, float]:
    """One start in this process."""
    before, began, wall = peak(), time.process_time(), time.perf_counter()
    source = as_source(ImageList(names, root, labels=True) if names else ImageFolder(root, labels=True))
    spent = dict(cpu_s=time.process_time() - began, wall_s=time.perf_counter() - wall)
    epoch, index = next(iter(EpochSampler(source)))
    source.name(index)
    spent['with_first_order_cpu_s'] = time.process_time() - began
    return dict(images=len(source), **{k: round(v, 2) for k, v in spent.items()}, peak_mb=round(peak() - before))


def measure(root: str, names: str | None = None) -> dict[str, float]:
    command = [sys.executable, __file__, '--start', root, *([names] if names else [])]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main(argv: list[str] | None = None) -> dict[str, dict]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=1_000_000)
    parser.add_argument('--folders', type=int, default=1000)
    parser.add_argument('--names', action='store_true', help='make the index alone')
    parser.add_argument('--start', nargs='+', help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.start:
        return start(args.start[0], args.start[1] if len(args.start) > 1 else None)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / 'images'
        root.mkdir()
        (make_index if args.names else make_files)(root, args.folders, args.images // args.folders)
        time.sleep(scanned.TICK / 1e9 + 0.5)  # or the folders would count as changed just now
        for k in range(1 + (not args.names)):
            found['second start' if k or args.names else 'first start'] = measure(str(root))
        if not args.names:
            table = Path(folder) / 'list.csv'
            files = ImageFolder(str(root), labels=True).file_names()
            table.write_text('path,label\n' + ''.join(f'{file},{file[:9]}\n' for file in files))
            for title in ('list, first start', 'list, second start'):
                found[title] = measure(str(root), str(table))
    return found


if __name__ == '__main__':
    print(json.dumps(main()))
