"""Linear transfer of a checkpoint to other labelled sets, each judged by its own metric; sets that are absent are skipped.

python tools/benchmarks/transfer.py configs/sfrik/r50_L3_q32768.py CHECKPOINT --root data --sets pets dtd flowers102

The same sets, fine-tuned: classify.py with --protocol configs/benchmarks/finetune_<set>.py, one for each of the twelve.
"""

import argparse
import copy
import os
from functools import partial
from pathlib import Path
from typing import Any

from common import arguments, compare, console, progress_bar, publish
from console_errors import run
from mmengine.config import Config
from rich.markup import escape
from torch import Tensor

from mmkernel.engine import load_config
from mmkernel.evaluation import TRANSFER_SETS, transfer
from mmkernel.evaluation.labels import labels_of
from mmkernel.evaluation.report import transfer_table
from mmkernel.evaluation.transfer_tasks import PENALTIES
from mmkernel.registry import DATASETS


def resolve(name: str, args: argparse.Namespace, cfg: Config) -> tuple[dict[str, Any], str]:
    """(overrides of the evaluation part of the config, metric) of a set of the suite, 'config', 'digits' or a pack."""
    mode = 'L' if len(cfg.data_preprocessor.mean) == 1 else 'RGB'
    if name == 'config':
        return {}, 'top1'
    if name == 'digits' and mode != 'L':
        raise ValueError('--sets digits: they have one channel, the images of the config have three.')
    if name == 'digits':
        return {
            f'evaluation.{split}': dict(_delete_=True, type='Digits', split=split) for split in ('train', 'test')
        }, 'top1'
    if name.endswith('.npz'):
        train, metric = dict(type='NpzPack', path=name, split='train', mode=mode), 'top1'
    elif name in TRANSFER_SETS:
        one = TRANSFER_SETS[name]
        train, metric = dict(type=one.source, root=str(Path(args.root) / name), split=one.train), one.metric
        train |= dict(mode=mode) if not name.startswith('cifar') else {}
    else:
        raise SystemExit(
            f"--sets {name}: expected 'config', 'digits', a pack *.npz, or one of {', '.join(TRANSFER_SETS)}."
        )
    side = args.size or (cfg.evaluation.get('transform') or {}).get('crop')
    if side is None:
        raise SystemExit(
            'The evaluation transform of the config names no size; give --size, that of its images in training.'
        )
    view = dict(_delete_=True, type='CenterView', resize=side, crop=side, interpolation='bicubic')
    train, test = dict(train, _delete_=True), dict(train, _delete_=True, split='test')
    return {'evaluation.train': train, 'evaluation.test': test, 'evaluation.transform': view}, metric


def one_set(args: argparse.Namespace, metric: str, sources: list, *data: Tensor) -> dict:
    """The score of one encoder on one set; ``targets`` of a source with several classes per image replace its labels."""
    train_x, train_y, test_x, test_y = data
    if metric == 'map11':
        train_y, test_y = map(labels_of, sources)
    validation = getattr(sources[0], 'validation', None)
    common = dict(metric=metric, validation=validation, penalties=args.penalties, seed=args.seed, device=args.device)
    with progress_bar() as bar:
        task = bar.add_task('logistic regressions')
        common['progress'] = lambda done, total: bar.update(task, completed=done, total=total)
        return transfer(train_x, train_y, test_x, test_y, **common)


def in_turn(args: argparse.Namespace, cfg: Config, rows: dict[str, dict], left_out: dict[str, str]) -> None:
    """Fill ``rows`` {encoder: row with scores {set: ...}} set by set, and ``left_out`` {set: why}."""
    for name in args.sets:
        options, metric = resolve(name, args, cfg)
        own = copy.copy(args)
        own.cfg_options = {**(args.cfg_options or {}), **options}
        part = load_config(args.config, own.cfg_options).evaluation
        try:
            sources = [DATASETS.build(part.train), DATASETS.build(part.test)]
        except FileNotFoundError as error:
            left_out[name] = str(error)
            console.print(f'[yellow]{name} left out:[/] {escape(str(error))}', highlight=False, soft_wrap=True)
            continue
        title = Path(name).stem
        for row in compare(own, partial(one_set, args, metric, sources))[1]:
            kept = rows.setdefault(row['name'], dict(row, scores={}))
            kept['scores'][title] = row['scores'] | dict(train=len(sources[0]), test=len(sources[1]))


def main() -> None:
    parser = arguments(
        'Linear transfer (Kornblith et al., CVPR 2019): L-BFGS, 45 penalties, refit on train + validation. '
        'Fine-tuned: classify.py with --protocol configs/benchmarks/finetune_SET.py.'
    )
    parser.add_argument('--root', default='data', help='folder above food101/, pets/, voc2007/, ...')
    parser.add_argument(
        '--sets', nargs='+', default=list(TRANSFER_SETS), help='of the twelve; or config, digits, PACK.npz'
    )
    parser.add_argument(
        '--size', type=int, help="side of the images; default: the crop of the config's evaluation part"
    )
    parser.add_argument('--penalties', type=float, nargs='+', default=PENALTIES, help='default: 45 from 1e-6 to 1e5')
    args = parser.parse_args()
    if int(os.environ.get('WORLD_SIZE', 1)) > 1:
        raise SystemExit('Transfer runs in one process. To use several GPUs start one process per set, with --sets.')
    cfg = load_config(args.config, args.cfg_options)
    rows: dict[str, dict] = {}
    left_out: dict[str, str] = {}
    try:
        in_turn(args, cfg, rows, left_out)
    finally:  # cut short after hours, it leaves what it has
        if rows:
            table = transfer_table(list(rows.values()))
            settings = dict(left_out=left_out, size=args.size, penalties=list(args.penalties))
            publish('transfer', args, cfg, list(rows.values()), table, **settings)
    if not rows:
        raise SystemExit(f'None of the sets is below {args.root}: nothing to do.')


if __name__ == '__main__':
    run(main)
