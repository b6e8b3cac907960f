"""Which transformation was applied to an image: an MLP on features h of the backbone and on embeddings g(h) of the neck.

python tools/benchmarks/transformation.py configs/sfrik/digits_L3.py work_dirs/sfrik/digits_L3/epoch_N.pth
"""

import argparse
import copy
from typing import Any

from common import arguments, compare, console, publish
from door import run
from mmengine.config import Config

from mmkernel.datasets import TASKS
from mmkernel.engine import load_config
from mmkernel.evaluation import mlp_probe, transformation_table

STAGES = dict(backbone='h', neck='g(h)')


def overrides(args: argparse.Namespace, cfg: Config, task: str) -> dict[str, Any]:
    """The evaluation part with each source wrapped; the config's own transform comes before the transformation."""
    wrapped = dict(
        _delete_=True, type='TransformedSource', task=task, transform=cfg.evaluation.transform, seed=args.seed
    )
    options = {
        f'evaluation.{part}': dict(wrapped, source=cfg.evaluation[part], noise_sigma=args.noise_sigma)
        for part in ('train', 'test')
    }
    return options | {'evaluation.transform': None}


def main() -> None:
    parser = arguments('Transformation prediction (Chen et al., ICML 2020, table 3) from h and from g(h).')
    parser.add_argument('--tasks', nargs='+', choices=TASKS, default=list(TASKS))
    parser.add_argument('--noise-sigma', type=float, default=25.0, help='grey levels of 255')
    parser.add_argument('--hidden', type=int, default=2048, help='width of the MLP')
    parser.add_argument('--epochs', type=int, default=30)
    args = parser.parse_args()
    cfg = load_config(args.config, args.cfg_options)
    probe = dict(hidden=args.hidden, epochs=args.epochs, seed=args.seed, device=args.device)
    rows: dict[str, dict] = {}
    for task in args.tasks:
        if task == 'grey' and len(cfg.data_preprocessor.mean) != 3:
            console.print('grey left out: images of one channel have no colour to lose; not defined.')
            continue
        for stage, short in STAGES.items():
            own = copy.copy(args)
            own.stage, own.cfg_options = stage, {**(args.cfg_options or {}), **overrides(args, cfg, task)}
            for row in compare(own, lambda *data: mlp_probe(*data, **probe))[1]:
                if row['name'] != 'raw pixels':  # they have no g(h), and their stage is the same twice
                    kept = rows.setdefault(row['name'], dict(row, scores={}))
                    kept['scores'].setdefault(task, {})[short] = row['scores']
    if not rows:
        raise SystemExit('No task is left: nothing to do.')
    settings = dict(noise_sigma=args.noise_sigma, hidden=args.hidden, epochs=args.epochs)
    publish('transformation', args, cfg, list(rows.values()), transformation_table(list(rows.values())), **settings)


if __name__ == '__main__':
    run(main)
