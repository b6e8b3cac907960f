"""Train a classifier on the encoder of a checkpoint by a published protocol: linear on a frozen one, or fine-tuned.

python tools/benchmarks/classify.py configs/sfrik/digits_L3.py CHECKPOINT --protocol configs/benchmarks/linear_digits.py
torchrun --nproc_per_node 8 tools/benchmarks/classify.py CONFIG CHECKPOINT --protocol PROTOCOL

The second config says how the classifier is trained and on what; backbone and normalisation come from the first.
"""

from __future__ import annotations

import argparse
import copy
import os
from pathlib import Path
from typing import Any

import torch
from console_errors import run
from mmengine.config import Config
from mmengine.dist import is_main_process
from rich.console import Console

from mmkernel.cli.options import OptionsAction
from mmkernel.engine import CheckpointError, load_config, load_weights, read_checkpoint, weights_of
from mmkernel.engine.launch import leave_processes
from mmkernel.evaluation import (
    accuracy,
    choose_options,
    fine_tune,
    probe_table,
    report,
    save_report,
    with_encoder,
)
from mmkernel.evaluation.classifier_metrics import metrics_heading
from mmkernel.evaluation.labels import classes_of
from mmkernel.models import build_model
from mmkernel.registry import DATASETS

console = Console()


def arguments(description: str | None = __doc__) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of the pretraining')
    parser.add_argument('checkpoint', help="its weights; none: the encoder as it is before training ('from scratch')")
    parser.add_argument('--protocol', required=True, help='config of configs/benchmarks')
    parser.add_argument('--untrained', action='store_true', help='a second row: the same from an untrained encoder')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, help='folder of runs and result (default: work_dirs/benchmarks/...)')
    parser.add_argument('--resume', action='store_true', help='go on with the runs that lie in --out')
    parser.add_argument(
        '--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE', help='override keys of the protocol'
    )
    return parser


def protocol(args: argparse.Namespace) -> tuple[Config, Path]:
    """The config to train, and the folder for it."""
    pretraining = load_config(args.config)
    cfg = with_encoder(load_config(args.protocol, args.cfg_options), pretraining)
    cfg.launcher = 'pytorch' if int(os.environ.get('WORLD_SIZE', 1)) > 1 else 'none'
    cfg.randomness = {**cfg.get('randomness', {}), 'seed': args.seed}
    folder = Path('work_dirs/benchmarks') / Path(args.protocol).stem
    return cfg, args.out or folder / f'{Path(args.config).resolve().parent.name}_{Path(args.config).stem}'


def encoders(args: argparse.Namespace) -> dict[str, str | None]:
    """{row of the table: its checkpoint}."""
    trained = {} if args.checkpoint.lower() == 'none' else {'trained encoder': args.checkpoint}
    return {**({'untrained encoder': None} if args.untrained or not trained else {}), **trained}


def test(cfg: Config, checkpoint: str) -> None:
    """Accuracy of a classifier that this script has trained; an encoder without a trained head is refused."""
    content = read_checkpoint(checkpoint)
    state = weights_of(content)
    if 'head.weight' not in state or 'steps' not in state:
        raise CheckpointError(
            f"'{checkpoint}' holds no classifier: a head that was never trained would score chance. Drop --test-only to "
            'train one on it, or name epoch_N.pth of a folder of work_dirs/benchmarks.'
        )
    model = build_model(cfg)
    load_weights(model, state, source=checkpoint)
    classes = content.get('classes')
    if classes is None:  # written before checkpoints of classifiers told what they tell apart
        classes = classes_of(DATASETS.build(cfg.train_dataloader.dataset.source))
    found = accuracy(model.to('cuda' if torch.cuda.is_available() else 'cpu'), cfg.evaluation, classes)
    row = dict(name='classifier', width=model.head.in_features, scores=dict(test=found))
    console.print(probe_table([row], f'{Path(checkpoint).name}: {metrics_heading(found)} in percent'))


def main() -> None:
    parser = arguments()
    parser.add_argument('--test-only', action='store_true', help='CHECKPOINT is a classifier: measure it once more')
    parser.add_argument(
        '--try', dest='options', nargs='+', action=OptionsAction, default={}, metavar='KEY=V1,V2',
        help='values to choose from on --held-out of the training images, in every combination',
    )  # fmt: skip
    parser.add_argument('--held-out', type=float, default=0.1, help='of each class, for --try')
    args = parser.parse_args()
    cfg, folder = protocol(args)
    if args.test_only:
        test(cfg, args.checkpoint)
        return
    rows: list[dict[str, Any]] = []
    for name, checkpoint in encoders(args).items():
        own, chosen, tried = copy.deepcopy(cfg), {}, []
        own.work_dir = str(folder / name.split()[0])
        if args.options:
            trials = Path(own.work_dir) / 'tried'
            chosen, tried = choose_options(
                own, checkpoint, args.options, args.held_out, args.seed, trials, resume=args.resume
            )
            own.merge_from_dict(chosen)
        found = dict(fine_tune(own, checkpoint, args.resume), chosen=chosen, tried=tried)
        scores = {'last epoch': found['last'], 'best epoch': found['best']}
        rows.append(dict(name=name, scores=scores, **found))
    if is_main_process():
        console.print(probe_table(rows, f'{Path(args.protocol).stem}: {metrics_heading(rows[0]["last"])} in percent'))
        for row in rows if 'mean_per_class' in rows[0]['last'] else ():
            console.print(
                f'{row["name"]}: {row["last"]["mean_per_class"]:.1f} % mean per class, last epoch', highlight=False
            )
        for row in rows if args.options else ():
            console.print(f'{row["name"]}: chosen on held-out training images: {row["chosen"]}', highlight=False)
        settings = dict(protocol=args.protocol, cfg_options=args.cfg_options)
        content = report('classify', rows, args.config, args.checkpoint, args.seed, **settings)
        console.print(f'written: {save_report(folder / "classify.json", content)}', highlight=False, soft_wrap=True)
    leave_processes()


if __name__ == '__main__':
    run(main)
