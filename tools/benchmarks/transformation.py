"""Which transformation was applied to an image: an MLP on features h of the backbone and on embeddings g(h) of the neck.

python tools/benchmarks/transformation.py configs/sfrik/digits_L3.py work_dirs/sfrik/digits_L3/epoch_N.pth
"""

import os

from common import arguments, console, encoders_of, progress_bar, publish
from console_errors import run

from mmkernel.datasets import TASKS
from mmkernel.engine import load_config
from mmkernel.evaluation import predict_transformations
from mmkernel.evaluation.report import transformation_table


def main() -> None:
    parser = arguments(
        'Transformation prediction (Chen et al., ICML 2020, table 3) from h and from g(h), whatever --stage.'
    )
    parser.add_argument('--tasks', nargs='+', choices=TASKS, default=list(TASKS))
    parser.add_argument('--noise-sigma', type=float, default=25.0, help='grey levels of 255')
    parser.add_argument('--hidden', type=int, default=2048, help='width of the MLP')
    parser.add_argument('--epochs', type=int, default=30)
    args = parser.parse_args()
    if int(os.environ.get('WORLD_SIZE', 1)) > 1:
        raise SystemExit('Transformation prediction runs in one process.')
    cfg = load_config(args.config, args.cfg_options)
    encoders = encoders_of(args, cfg, 'neck')
    settings = dict(noise_sigma=args.noise_sigma, hidden=args.hidden, epochs=args.epochs)
    with progress_bar() as bar:
        task = bar.add_task('features')
        shared = dict(seed=args.seed, cache=args.cache, device=args.device, **settings)
        shared['progress'] = lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
        rows = predict_transformations(cfg, encoders, args.tasks, **shared)
    if 'grey' in args.tasks and 'grey' not in rows[0]['scores']:
        console.print('grey left out: images of one channel have no colour to lose; not defined.')
    if not rows[0]['scores']:
        raise SystemExit('No task is left: nothing to do.')
    publish('transformation', args, cfg, rows, transformation_table(rows), **settings)


if __name__ == '__main__':
    run(main)
