"""Linear classifiers on cached features of a checkpoint, beside raw pixels and the untrained encoder.

python tools/benchmarks/linear.py configs/sfrik/digits_L3.py work_dirs/sfrik/digits_L3/epoch_N.pth
"""

import argparse

from common import arguments, compare, console, publish
from torch import Tensor

from mmkernel.evaluation import linear_probe, logistic_regression, probe_table

LARGE = 50_000  # images; above, L-BFGS over all of them at once takes hours


def scores(args: argparse.Namespace, *data: Tensor) -> dict[str, dict[str, float]]:
    """{protocol: accuracies} for one encoder."""
    found = {}
    if 'sgd' in args.protocols:
        found[f'SGD, {args.epochs} epochs'] = linear_probe(
            *data, args.epochs, args.batch_size, args.lr, weight_decay=args.weight_decay, seed=args.seed,
            device=args.device,
        )  # fmt: skip
    if 'lbfgs' in args.protocols and (args.force or len(data[0]) <= LARGE):
        found[f'L-BFGS, l2, C = {args.strength:g}'] = logistic_regression(*data, args.strength)
    elif 'lbfgs' in args.protocols:
        console.print(f'L-BFGS left out: {len(data[0])} training images exceed {LARGE}; --force runs it.')
    return found


def main() -> None:
    parser = arguments('Linear probe on cached features (Zheng et al., ICLR 2023: the defaults), and L-BFGS.')
    parser.add_argument('--protocols', nargs='+', choices=('sgd', 'lbfgs'), default=['sgd', 'lbfgs'])
    parser.add_argument('--epochs', type=int, default=100)
    parser.add_argument('--batch-size', type=int, default=256)
    parser.add_argument('--lr', type=float, default=0.4, help='absolute: not scaled by the batch')
    parser.add_argument('--weight-decay', type=float, default=1e-6)
    parser.add_argument('--strength', type=float, default=100.0, help="scikit-learn's C of the L-BFGS protocol")
    parser.add_argument('--force', action='store_true', help=f'L-BFGS even above {LARGE} images')
    args = parser.parse_args()
    cfg, rows = compare(args, lambda *data: scores(args, *data))
    names = ('protocols', 'epochs', 'batch_size', 'lr', 'weight_decay', 'strength')
    settings = {name: getattr(args, name) for name in names}
    publish('linear', args, cfg, rows, probe_table(rows, 'linear probe: top-1/top-5 in percent'), **settings)


if __name__ == '__main__':
    main()
