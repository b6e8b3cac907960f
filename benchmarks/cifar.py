"""CIFAR-10, ResNet-18: SFRIK of three orders, VICReg and SimCLR at one budget of epochs, judged by nearest neighbours.

python benchmarks/cifar.py --data data/cifar10_jpeg.npz --limit-s 170 --json benchmarks/results/gpu_cifar.json

The project's recipes of 30 epochs, each with its own views, learning rate and head, all at batch 512, in bfloat16, compiled and
channels_last. The whole way from the file to the optimizer, goal 17 000 images/s: --only 'SFRIK L=3' --epochs 5 --seeds 1.
The budget is what --limit-s allows for one seed of every method, after an epoch that measures how fast they train, unless
--epochs says it; more seeds follow as long as a whole run fits. It is a small part of a published run: the figures compare
methods at that budget and nothing else. Results are written after each run; --encoders FOLDER keeps the encoders of the first
seed in half precision (22 MB each).
"""

from __future__ import annotations

import fnmatch
import itertools
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from harness import arguments, report, write
from mmengine.config import Config
from mmengine.hooks import Hook

from mmkernel.engine import latest_checkpoint, load_config, train
from mmkernel.engine.hooks import unwrap
from mmkernel.evaluation import extract_features, weighted_knn
from mmkernel.registry import HOOKS
from mmkernel.zoo import Encoder, publish_checkpoint

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
LEGENDRE = (1.0, 40.0, 40.0)
METHODS = {  # name -> (config, config without a pack, options)
    **{
        f'SFRIK L={L}': ('sfrik/cifar10_speedrun', 'sfrik/digits_L3', {'model.head.kernel.weights': LEGENDRE[:L]})
        for L in (3, 2, 1)
    },
    'VICReg': ('vicreg/cifar10_speedrun', 'vicreg/digits', {}),
    'SimCLR': ('simclr/cifar10_speedrun', 'simclr/digits', {}),
}
NEIGHBOURS = (20, 200)
COLUMNS = ['method', 'seed', 'epochs', 'images/s', 'goal', 'train', 'kNN, k = 20', 'kNN, k = 200']
GOAL = 17_000  # images/s on one H100
BURST = 30  # batches that wait, made, when the first is asked for


@HOOKS.register_module()
class IterationTimes(Hook):
    """``times``: when each iteration of the last run was handed over."""

    times: list[float] = []

    def before_run(self, runner: Any) -> None:
        self.times.clear()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.times.append(time.perf_counter())


def config(method: str, seed: int, epochs: int, args: Namespace, folder: Path) -> Config:
    """A run of ``epochs`` epochs, whose schedule ends with them."""
    with_pack, without, options = METHODS[method]
    cfg = load_config(CONFIGS / f'{with_pack if args.data else without}.py', options)
    if args.data:
        pack = dict(type='NpzPack', path=str(args.data.resolve()))
        cfg.train_dataloader.dataset.source = dict(pack, split='train')
        cfg.evaluation.train, cfg.evaluation.test = (dict(pack, split=split) for split in ('train', 'test'))
        cfg.evaluation.num_workers = args.workers
    cfg.train_dataloader.update(batch_size=32 if args.quick else args.batch, num_workers=args.workers)
    if args.quick:
        cfg.train_dataloader.num_batch_per_epoch = 2
        cfg.evaluation.train = cfg.evaluation.test
    on_cuda = args.device.startswith('cuda')
    cfg.channels_last, cfg.compile = on_cuda, on_cuda and cfg.compile
    cfg.optim_wrapper.precision = 'bfloat16' if on_cuda else 'float32'
    cfg.randomness = dict(seed=seed, deterministic=False)
    cfg.train_cfg.max_epochs = epochs
    cfg.param_scheduler.warmup_epochs = max(epochs // 10, min(epochs - 1, 1))
    for name in ('monitor', 'doctor', 'knn', 'report'):
        cfg.default_hooks[name] = None
    cfg.default_hooks.checkpoint.interval = epochs
    cfg.custom_hooks = [dict(type='IterationTimes')]
    cfg.work_dir, cfg.log_level = str(folder), 'WARNING'
    return cfg


def run(method: str, seed: int, epochs: int, args: Namespace, folder: Path) -> dict[str, Any]:
    """Train, and judge by nearest neighbours."""
    cfg, started = config(method, seed, epochs, args, folder), time.perf_counter()
    model = unwrap(train(cfg).model)
    trained, part = time.perf_counter() - started, cfg.evaluation
    splits = [
        extract_features(model, s, part.transform, part.batch_size, part.num_workers) for s in (part.train, part.test)
    ]
    found = weighted_knn(*splits[0], *splits[1], k=NEIGHBOURS, device=args.device)
    row = dict(
        method=method, config=Path(cfg.filename).relative_to(CONFIGS.parent).as_posix(), seed=seed, epochs=epochs,
        batch=cfg.train_dataloader.batch_size, images_per_second=rate(cfg.train_dataloader.batch_size),
        train_seconds=trained, seconds=time.perf_counter() - started,
        knn={str(k): found[k]['top1'] for k in NEIGHBOURS},
    )  # fmt: skip
    if args.encoders and seed == 0:
        name = method.replace(' ', '_').replace('=', '').lower() + ('_cifar10' if args.data else '_digits')
        facts = dict(name=name, license='Apache-2.0', seed=str(seed), epochs=epochs, config_name=row['config'])
        facts['source'] = facts['command'] = f'trained by benchmarks/cifar.py, {epochs} epochs'
        args.encoders.mkdir(parents=True, exist_ok=True)
        encoder = Encoder.from_config(cfg, model.backbone.cpu(), **facts)
        row['encoder'] = publish_checkpoint(
            encoder, latest_checkpoint(folder), args.encoders, name, half=True
        ).path.name
    return row


def attempt(method: str, seed: int, epochs: int, *rest: Any) -> dict[str, Any]:
    """``run``, or what stopped it: the others go on."""
    try:
        return run(method, seed, epochs, *rest)
    except (RuntimeError, ValueError) as error:
        print(f'{method}: {error}', file=sys.stderr, flush=True)
        return dict(method=method, seed=seed, epochs=epochs, error=f'{type(error).__name__}: {str(error)[:500]}')


def rate(batch: int) -> float:
    """Images a second of the run that has just ended, without the batches that were made before it asked."""
    times = IterationTimes.times
    steady = times[BURST:] if len(times) > 2 * BURST else times
    return batch * (len(steady) - 1) / max(steady[-1] - steady[0], 1e-9)


def budget(first: dict[str, Any], images: int, methods: int, left: float) -> int:
    """Epochs that let every method run once in ``left`` seconds, from a run of one epoch."""
    epoch = images / first['images_per_second']
    beside = max(first['seconds'] - epoch, 0.0)  # workers, evaluation
    return max(int((0.95 * left / methods - beside) / epoch), 1)


def line(row: dict[str, Any]) -> list[str]:
    cells = [row['method'], str(row['seed']), str(row['epochs'])]
    if 'error' in row:
        return [*cells, 'failed', '', '', '', '']
    speed = row['images_per_second']
    shown = [f'{speed:.0f}', f'{GOAL} {"hit" if speed >= GOAL else "miss"}', f'{row["train_seconds"]:.0f} s']
    return [*cells, *shown, *(f'{top1:.2f} %' for top1 in row['knn'].values())]


def main(argv: list[str] | None = None) -> list[list[str]]:
    args = arguments(
        __doc__,
        argv,
        data=dict(type=Path, metavar='FILE', help='the npz pack; without one the digits stand in'),
        limit_s=dict(type=float, default=170, help='seconds for everything'),
        epochs=dict(type=int, help='of each run; left out: as many as the limit allows'),
        seeds=dict(type=int, default=5, help='at most'),
        batch=dict(type=int, default=512),
        workers=dict(type=int, default=0, help='processes that make views'),
        encoders=dict(type=Path, metavar='FOLDER', help='keep the encoders of the first seed there'),
    )
    started, rows = time.perf_counter(), []
    methods = [name for name in METHODS if fnmatch.fnmatch(name, args.only)]
    content = dict(rows=rows, columns=COLUMNS, lines=[], data=args.data.name if args.data else 'digits')
    with tempfile.TemporaryDirectory() as folder:
        epochs = 1 if args.quick else args.epochs
        if epochs is None:
            first = run(methods[0], 0, 1, Namespace(**{**vars(args), 'encoders': None}), Path(folder) / 'first')
            epochs = budget(
                first, 50_000 if args.data else 1437, len(methods), args.limit_s - (time.perf_counter() - started)
            )
            print(f'{first["images_per_second"]:.0f} images/s: {epochs} epochs', file=sys.stderr, flush=True)
        for seed, method in itertools.product(range(1 if args.quick else args.seeds), methods):
            longest = max((row.get('seconds', 0.0) for row in rows), default=0.0)
            if time.perf_counter() - started + longest > args.limit_s and not args.quick:
                content['note'] = 'the time was over'
                break
            rows.append(attempt(method, seed, epochs, args, Path(folder) / f'{methods.index(method)}_{seed}'))
            content['lines'].append(line(rows[-1]))
            write(__file__, args, **content)
            print(content['lines'][-1], file=sys.stderr, flush=True)
    report(__file__, args, **content)
    return content['lines']


if __name__ == '__main__':
    main()
