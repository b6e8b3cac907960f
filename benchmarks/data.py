"""What a view costs: images per second of a loader's workers, beside the published pipelines on the same recipe.

python benchmarks/data.py --images imagenet_sample.tar cifar10.npz --json benchmarks/results/data.json

Forms alternate, each through a DataLoader of its own with 1 and 2 workers; the first round and each worker's first batch do
not count; medians. Time is the CPU time of the workers (``time.process_time`` in their collate function: decoding, views,
collate, shipping), so that other load matters little. The machine's rate is what all its cores would give if they did nothing
else. Recipes are those of configs/; the peers' are made from them, but for lightly, whose transform has its own defaults.
--images takes tar files and folders of images and npz packs (without: JPEGs made here); images below 64 px stand for CIFAR's.
--before FOLDER: a checkout of an earlier commit, named after it, whose loader is a form too, in processes of its own.
--device cuda measures what the views cost there instead, beside a step of the encoder (``view_share.py``).
"""

from __future__ import annotations

import gc
import io
import os
import random
import statistics
import subprocess
import sys
import tarfile
import time
from argparse import Namespace
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import arguments, report, write
from mmengine.config import Config
from PIL import Image, ImageFilter, ImageOps
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import v2 as tv

from mmkernel.datasets import Source, ViewDataset, loader
from mmkernel.datasets.images import decode

CONFIGS = Path(__file__).resolve().parents[1] / 'configs/_base_'
CASES = {  # name -> (recipe, lightly's transform and its options)
    '2 x 224': ('imagenet_two_views', 'VICRegTransform', {}),
    '2 x 224 + 6 x 96': ('imagenet_multicrop', 'SwaVTransform', {}),
    '2 x 32': ('cifar10_two_views', 'SimCLRTransform', dict(input_size=32, gaussian_blur=0.0)),
}
GOALS = {  # (case, form) -> times the rate before
    ('2 x 224', 'ours, worker'): 2.8,
    ('2 x 224', 'ours, device form'): 4.5,
    ('2 x 224 + 6 x 96', 'ours, worker'): 2.2,
    ('2 x 32', 'ours, worker'): 4,
}
COLUMNS = [
    'case',
    'form',
    'workers',
    'ms an image',
    'images/s of a core',
    'of the machine',
    'decoding',
    'ratio',
    'goal',
]
BEFORE, DECODING = 'ours, before', 'ours, decoding alone'


class Encoded(Source):
    """Images as their encoded bytes, in memory: what is measured is not the disk."""

    def __init__(self, encoded: list[bytes]) -> None:
        super().__init__()
        self.encoded, self.labels = encoded, np.zeros(len(encoded), np.int64)

    def read(self, i: int) -> np.ndarray:
        return decode(self.encoded[i], self.name(i))


class Mapped(Dataset):
    """``make`` of the bytes of each image; keys are those of ``ViewDataset``, (epoch, index)."""

    def __init__(self, encoded: list[bytes], make: Callable[[bytes], Any]) -> None:
        self.encoded, self.make = encoded, make

    def __getitem__(self, key: tuple[int, int]) -> Any:
        return self.make(self.encoded[key[1]])


class Clock:
    """``collate`` of a batch, with the worker's number and its CPU time so far."""

    def __init__(self, collate: Callable) -> None:
        self.collate = collate

    def __call__(self, samples: list) -> tuple[int, float, Any]:
        batch = self.collate(samples)
        return torch.utils.data.get_worker_info().id, time.process_time(), batch


def views_of(recipe: str) -> dict:
    return Config.fromfile(CONFIGS / f'{recipe}.py').train_dataloader.dataset.views.to_dict()


def operations(view: dict, pillow: bool) -> list[Callable]:
    """A view of the recipe in torchvision's words; ``pillow``: blur and solarization as the authors wrote them."""
    crop, steps = dict(view['crop']), []
    crop['interpolation'] = InterpolationMode(crop['interpolation'])
    del crop['type']
    for op in view['ops'].values():
        op = dict(op)
        kind, p = op.pop('type'), op.pop('probability', 1.0)
        if kind == 'RandomFlip':
            step = tv.RandomHorizontalFlip(p)
        elif kind == 'RandomGrayscale':
            step = tv.RandomGrayscale(p)
        elif kind == 'ColorJitter':
            step = tv.RandomApply([tv.ColorJitter(**op)], p)
        elif kind == 'GaussianBlur':
            step = tv.RandomApply([PillowBlur(op['sigma']) if pillow else tv.GaussianBlur(23, op['sigma'])], p)
        elif kind == 'Solarize':
            step = tv.RandomApply([ImageOps.solarize], p) if pillow else tv.RandomSolarize(op['threshold'], p)
        steps.append(step)
    to_floats = [tv.ToImage(), tv.ToDtype(torch.float32, scale=True), tv.Normalize([0.5] * 3, [0.25] * 3)]
    return [tv.RandomResizedCrop(view['size'], **crop), *steps, *to_floats]


class PillowBlur(torch.nn.Module):
    def __init__(self, sigma: tuple[float, float]) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(random.uniform(*self.sigma)))


def pillow_image(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert('RGB')


def tensor_image(data: bytes) -> torch.Tensor:
    return decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)


def published(encoded: list[bytes], recipe: str, pillow: bool) -> tuple[Dataset, Callable]:
    read = pillow_image if pillow else tensor_image
    views = views_of(recipe).values()
    chains = [tv.Compose(operations(view, pillow)) for view in views for _ in range(view['count'])]

    def make(data: bytes) -> list[torch.Tensor]:
        image = read(data)
        return [chain(image) for chain in chains]

    return Mapped(encoded, make), default_collate


def lightly(encoded: list[bytes], name: str, options: dict) -> tuple[Dataset, Callable]:
    from lightly import transforms

    transform = getattr(transforms, name)(**options)
    return Mapped(encoded, lambda data: transform(pillow_image(data))), default_collate


def ours(encoded: list[bytes], recipe: str, **options: Any) -> ViewDataset:
    """What a worker does of our views; under views_on='device' that ends with the crop."""
    dataset = ViewDataset(Encoded(encoded), views_of(recipe), **options)
    dataset.place('cpu')
    return dataset


def forms_of(case: str, encoded: list[bytes]) -> dict[str, Callable[[], tuple[Dataset, Callable]]]:
    """name -> maker of the data set and its collate function."""
    recipe, *peer = CASES[case]
    return {
        BEFORE: lambda: (ViewDataset(Encoded(encoded), views_of(recipe)), default_collate),
        'ours, exact': lambda: (ours(encoded, recipe, exact=True), loader.collate_views),
        'ours, worker': lambda: (ours(encoded, recipe, views_on='worker'), loader.collate_views),
        'ours, device form': lambda: (ours(encoded, recipe, views_on='device'), loader.collate_views),
        DECODING: lambda: (Mapped(encoded, lambda data: decode(data, '').shape[0]), default_collate),
        'Pillow and torchvision': lambda: published(encoded, recipe, pillow=True),
        "torchvision's v2 on tensors": lambda: published(encoded, recipe, pillow=False),
        "lightly's transform": lambda: lightly(encoded, *peer),
    }


def milliseconds(maker: Callable, images: int, count: int, batch: int, workers: int) -> float:
    """CPU time of the workers per image: of ``count`` images out of ``images``, after a first batch of each worker."""
    dataset, collate = maker()
    keys = [(0, k % images) for k in range(count + workers * batch)]
    times: dict[int, list[float]] = {}
    batches = DataLoader(
        dataset, batch, sampler=keys, num_workers=workers, collate_fn=Clock(collate), worker_init_fn=one_thread
    )
    for worker, seconds, _ in batches:
        times.setdefault(worker, []).append(seconds)
    spent = sum(each[-1] - each[0] for each in times.values())
    return 1000 * spent / (batch * sum(len(each) - 1 for each in times.values()))


def sizes(case: str, quick: bool) -> tuple[int, int]:
    """Batch, and images of a repetition."""
    return (4, 8) if quick else (256, 1536) if case == '2 x 32' else (32, 96)


def one_thread(_: int) -> None:
    torch.set_num_threads(1)
    gc.freeze()  # one full collection of what the parent had imported would cost as much as hundreds of small images


def before(case: str, workers: int, args: Namespace) -> float:
    """``milliseconds`` of the loader of ``--before``, by this script in a process that imports that checkout."""
    command = [sys.executable, __file__, '--one', case, str(workers), *(['--quick'] if args.quick else [])]
    command += ['--images', *map(str, args.images)] if args.images else []
    environment = {**os.environ, 'PYTHONPATH': str(args.before.resolve())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'{" ".join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}')
    return float(done.stdout.split('milliseconds ')[-1])


def generated(size: tuple[int, int], count: int) -> list[bytes]:
    """JPEGs of noise at all scales, about as many bytes as photographs of that size."""
    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        image = np.full((*size[::-1], 3), 128.0)
        for scale in (2, 4, 8, 32, 128):
            small = rng.normal(size=(-(-size[1] // scale), -(-size[0] // scale), 3)) * 4 * scale**0.4
            image += np.kron(small, np.ones((scale, scale, 1)))[: size[1], : size[0]]
        file = io.BytesIO()
        Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(file, 'JPEG', quality=90)
        found.append(file.getvalue())
    return found


def images_of(paths: list[Path] | None, quick: bool) -> tuple[list[bytes], list[bytes], str]:
    """Encoded images: large ones and those below 64 px, made here where none is given; and what they are."""
    large, small, names = [], [], []
    for path in paths or ():
        if path.suffix == '.npz':
            with np.load(path) as pack:
                data, ends = pack['train_jpeg'].tobytes(), pack['train_off'][:2049]
            found = [data[a:b] for a, b in zip(ends[:-1], ends[1:], strict=True)]
        elif path.is_dir():
            found = [file.read_bytes() for file in sorted(path.rglob('*')) if file.suffix.lower() in ('.jpg', '.jpeg')]
        else:
            with tarfile.open(path) as pack:
                found = [pack.extractfile(m).read() for m in pack if m.name.lower().endswith(('.jpg', '.jpeg'))]
        if not found:
            raise ValueError(f'--images {path}: no JPEG in it; expected a folder or tar of .jpg files, or an npz pack.')
        (small if max(pillow_image(found[0]).size) < 64 else large).extend(found)
        names.append(f'{len(found)} images of {path.name}')
    if not large:
        large = generated((500, 375), 2 if quick else 48)
        names.append(f'{len(large)} JPEGs of 500 x 375 made here, {sum(map(len, large)) // len(large) // 1000} kB each')
    if not small:
        small = generated((32, 32), 16 if quick else 512)
        names.append(f'{len(small)} JPEGs of 32 x 32 made here')
    return large, small, '; '.join(names)


def measured(case: str, encoded: list[bytes], args: Namespace) -> list[dict]:
    """A row for each form and number of workers."""
    batch, count = sizes(case, args.quick)
    forms = {name: maker for name, maker in forms_of(case, encoded).items() if name != BEFORE or args.before}
    forms = {name: maker for name, maker in forms.items() if fnmatch(name, args.forms)}
    rows = []
    for workers in (1,) if args.quick else (1, 2):
        found: dict[str, list[float]] = {name: [] for name in forms}
        failed: dict[str, str] = {}
        for _ in range(1 if args.quick else args.rounds):
            for name, maker in forms.items():
                try:
                    if name == BEFORE:
                        found[name].append(before(case, workers, args))
                    else:
                        found[name].append(milliseconds(maker, len(encoded), count, batch, workers))
                except ImportError as error:
                    failed[name] = f'not installed: {error.name}'
        for name, times in found.items():
            row = dict(case=case, form=name, workers=workers, all_ms=times, ms=None, skipped=failed.get(name))
            rows.append(row | (dict(ms=statistics.median(times[1:] or times)) if times else {}))
    return rows


def lines_of(rows: list[dict]) -> list[list[str]]:
    """Rates, the share of decoding, and the ratio to the rate before, beside the goal."""
    ms, lines = {(row['case'], row['workers'], row['form']): row['ms'] for row in rows}, []
    for row in rows:
        case, workers, form, own = row['case'], row['workers'], row['form'], row['ms']
        if own is None:
            lines.append([case, form, str(workers), row['skipped'], '', '', '', '', ''])
            continue
        base, decoding = ms.get((case, workers, BEFORE)), ms.get((case, workers, DECODING)) or 0.0
        goal, ratio = GOALS.get((case, form)), base / own if base else None
        verdict = '' if goal is None else f'{goal:g} ' + ('?' if ratio is None else 'hit' if ratio >= goal else 'miss')
        rates = [f'{1000 / own:.0f}', f'{1000 * os.cpu_count() / own:.0f}' if workers == 2 else '']
        share = f'{decoding / own:.0%}' if decoding and form.startswith('ours') and form != DECODING else ''
        shown = [share, f'{ratio:.2f}' if ratio else '', verdict]
        lines.append([case, form, str(workers), f'{own:.3g}', *rates, *shown])
    return lines


def main(argv: list[str] | None = None) -> list[dict]:
    args = arguments(
        __doc__,
        argv,
        images=dict(type=Path, nargs='+', metavar='PATH', help='tar files or folders of JPEGs, npz packs'),
        before=dict(type=Path, metavar='FOLDER', help='a checkout of an earlier commit to compare with'),
        forms=dict(default='*', metavar='PATTERN', help='forms whose name matches, e.g. "ours*"'),
        one=dict(nargs=2, metavar=('CASE', 'WORKERS'), help='only the earlier form of a case, as --before calls it'),
    )
    torch.set_num_threads(1)
    large, small, names = images_of(args.images, args.quick)
    pick = {case: small if case == '2 x 32' else large for case in CASES}
    if args.one:
        case, workers = args.one
        batch, count = sizes(case, args.quick)
        maker = forms_of(case, pick[case])[BEFORE]
        print(f'milliseconds {milliseconds(maker, len(pick[case]), count, batch, int(workers))}')
        return []
    chosen = [case for case in CASES if fnmatch(case, args.only)]
    rows: list[dict] = []
    if args.device.startswith('cuda') or args.quick:
        import view_share  # not in the process of --before, whose package lacks what it needs

        datasets = {case: ours(pick[case], CASES[case][0], views_on='device') for case in chosen}
        for row in view_share.shares(datasets, args):
            rows.append(row)
            content = dict(rows=rows, columns=view_share.COLUMNS, lines=[view_share.line(each) for each in rows])
            write(__file__, args, **content)
        report(__file__, args, **content)
    if args.device.startswith('cuda'):
        return rows
    rows = []
    content = dict(rows=rows, columns=COLUMNS, cores=os.cpu_count())
    content |= dict(before=args.before.name) if args.before else {}
    content['setting'] = f'{names}.' + (f' Before: commit {args.before.name}.' if args.before else '')
    for case in chosen:
        print(f'{case} ...', file=sys.stderr, flush=True)
        rows += measured(case, pick[case], args)
        write(__file__, args, **content, lines=lines_of(rows))
    report(__file__, args, **content, lines=lines_of(rows))
    return rows


if __name__ == '__main__':
    main()
