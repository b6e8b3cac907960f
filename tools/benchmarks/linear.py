"""Linear classifiers on cached features of a checkpoint, beside raw pixels and the untrained encoder.

python tools/benchmarks/linear.py configs/sfrik/digits_L3.py work_dirs/sfrik/digits_L3/epoch_N.pth
"""

import argparse

from common import arguments, compare, console, progress_bar, publish
from console_errors import run
from torch import Tensor

from mmkernel.evaluation import linear_probe, linear_sweep, logistic_regression, probe_table
from mmkernel.evaluation.inputs import SCALINGS
from mmkernel.evaluation.linear import LEARNING_RATES, WEIGHT_DECAYS

LARGE = 50_000  # images; above, L-BFGS over all of them at once takes hours
PROTOCOLS = ('sweep', 'lbfgs', 'sgd')


def scores(args: argparse.Namespace, *data: Tensor) -> dict[str, dict[str, float]]:
    """{protocol: accuracies} for one encoder."""
    found = {}
    with progress_bar() as bar:
        task = bar.add_task('linear heads')
        common = dict(device=args.device, progress=lambda done, of: bar.update(task, completed=done, total=of))
        if 'sweep' in args.protocol:
            grid = (args.lrs, args.weight_decays, args.scalings)
            best = linear_sweep(*data, *grid, args.epochs, args.batch_size, seeds=args.seeds, **common)
            found[f'best of {best["heads"]} heads'] = best
            if best['at_edge']:
                edge = f'{" and ".join(best["at_edge"])} at the edge of what was offered'
                console.print(
                    f'{data[0].shape[1]} features: {edge}: {best["chosen"]}.', highlight=False, soft_wrap=True
                )
        if 'sgd' in args.protocol:
            found[f'SGD, {args.epochs} epochs'] = linear_probe(
                *data, args.epochs, args.batch_size, args.lr, weight_decay=args.weight_decay, seed=args.seed, **common
            )
    if 'lbfgs' in args.protocol and (args.force or len(data[0]) <= LARGE):
        found[f'L-BFGS, l2, C = {args.strength:g}'] = logistic_regression(*data, args.strength)
    elif 'lbfgs' in args.protocol:
        console.print(f'L-BFGS left out: {len(data[0])} training images exceed {LARGE}; --force runs it.')
    return found


def main() -> None:
    parser = arguments(
        'Linear probes on cached features. sweep: every learning rate, weight decay and scaling of a grid at once, chosen '
        'on held-out training images; sgd: one recipe (Zheng et al., ICLR 2023: the defaults); lbfgs: logistic regression.'
    )
    parser.add_argument('--protocol', nargs='+', choices=PROTOCOLS, default=list(PROTOCOLS))
    parser.add_argument('--epochs', type=int, default=100)
    parser.add_argument('--batch-size', type=int, default=256)
    parser.add_argument('--lrs', type=float, nargs='+', default=LEARNING_RATES, help='of the sweep')
    parser.add_argument('--weight-decays', type=float, nargs='+', default=WEIGHT_DECAYS, help='of the sweep')
    parser.add_argument('--scalings', nargs='+', choices=SCALINGS, default=SCALINGS, help='of the sweep')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='of the sweep: one refit each')
    parser.add_argument('--lr', type=float, default=0.4, help='of sgd, absolute: not scaled by the batch')
    parser.add_argument('--weight-decay', type=float, default=1e-6, help='of sgd')
    parser.add_argument('--strength', type=float, default=100.0, help="scikit-learn's C of the L-BFGS protocol")
    parser.add_argument('--force', action='store_true', help=f'L-BFGS even above {LARGE} images')
    args = parser.parse_args()
    cfg, rows = compare(args, lambda *data: scores(args, *data))
    names = 'protocol epochs batch_size lrs weight_decays scalings seeds lr weight_decay strength'.split()
    settings = {name: getattr(args, name) for name in names}
    publish('linear', args, cfg, rows, probe_table(rows, 'linear probe: top-1/top-5 in percent'), **settings)


if __name__ == '__main__':
    run(main)
