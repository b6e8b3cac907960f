"""VOC07 classification with linear support vector machines on cached features; --low-shot: with a few images per class.

python tools/benchmarks/voc07_svm.py configs/sfrik/r50_L3_q32768.py CHECKPOINT --root data/voc2007
"""

import argparse
from functools import partial

from common import arguments, compare, progress_bar, publish
from console_errors import run
from torch import Tensor

from mmkernel.engine import load_config
from mmkernel.evaluation import amount_table, low_shot_svm, voc_svm
from mmkernel.evaluation.labels import labels_of
from mmkernel.evaluation.report import svm_table
from mmkernel.evaluation.svm import COSTS, SHOTS
from mmkernel.registry import DATASETS

SPLITS = dict(train='trainval', test='test')


def sources(args: argparse.Namespace) -> dict:
    """What to override in the evaluation part of the config: VOC in place of its sources, one size for all images."""
    cfg = load_config(args.config, args.cfg_options)
    grey = len(cfg.data_preprocessor.mean) == 1
    common = dict(_delete_=True, type='VOC2007', root=args.root, classes=args.classes, mode='L' if grey else 'RGB')
    options = {f'evaluation.{part}': dict(common, split=split) for part, split in SPLITS.items()}
    if args.size:
        sides = dict(resize=round(args.size * 256 / 224), crop=args.size)
        options['evaluation.transform'] = dict(_delete_=True, type='CenterView', interpolation='bicubic', **sides)
    return options


def machines(args: argparse.Namespace, built: list, *data: Tensor) -> dict:
    """Scores of one encoder; the labels that came with the features are -1, a photograph having several classes."""
    train_x, _, test_x, _ = data
    rows = train_x, labels_of(built[0]), test_x, labels_of(built[1])
    common = dict(costs=args.costs, seed=args.seed, jobs=args.jobs)
    with progress_bar() as bar:
        task = bar.add_task('support vector machines')
        common['progress'] = lambda done, total: bar.update(task, completed=done, total=total)
        if args.low_shot:
            return low_shot_svm(*rows, shots=args.shots, draws=args.draws, **common)
        return voc_svm(*rows, **common)


def main() -> None:
    parser = arguments('VOC07 mAP of linear SVMs, and low-shot mAP (Goyal et al., ICCV 2019).')
    parser.add_argument('--root', default='data/voc2007', help='VOCdevkit, VOCdevkit/VOC2007 or the folder above')
    parser.add_argument('--classes', nargs='+', help='only these; default: all')
    parser.add_argument(
        '--size', type=int, help='crop of this side after a resize of 8/7 of it; default: as the config'
    )
    parser.add_argument('--costs', type=float, nargs='+', default=COSTS, help="default: the published code's 19 values")
    parser.add_argument('--low-shot', action='store_true', help='k positives per class instead of all')
    parser.add_argument('--shots', type=int, nargs='+', default=SHOTS, help='numbers k of --low-shot')
    parser.add_argument('--draws', type=int, default=5, help='of --low-shot')
    parser.add_argument('--jobs', type=int, default=1, help='machines trained side by side; -1: one per core')
    args = parser.parse_args()
    args.cfg_options = {**(args.cfg_options or {}), **sources(args)}
    evaluation = load_config(args.config, args.cfg_options).evaluation
    built = [DATASETS.build(evaluation[part]) for part in SPLITS]
    cfg, rows = compare(args, partial(machines, args, built))
    name = 'voc07_low_shot_svm' if args.low_shot else 'voc07_svm'
    low_shot = 'VOC07 low-shot SVM: mAP in percent, positives per class'
    table = amount_table(rows, low_shot) if args.low_shot else svm_table(rows)
    images = dict(train=len(built[0]), test=len(built[1]), classes=built[0].classes)
    publish(name, args, cfg, rows, table, costs=list(args.costs), images=images)


if __name__ == '__main__':
    run(main)
