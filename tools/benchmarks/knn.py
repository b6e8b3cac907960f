"""Weighted kNN of a checkpoint, beside raw pixels and the untrained encoder.

python tools/benchmarks/knn.py configs/sfrik/digits_L3.py work_dirs/sfrik/digits_L3/epoch_N.pth
"""

from functools import partial

from common import arguments, compare, publish
from console_errors import run

from mmkernel.evaluation import probe_table, weighted_knn


def main() -> None:
    parser = arguments('Weighted kNN (Zheng et al., ICLR 2023: k = 10, 20, 100, 200, temperature 0.07).')
    parser.add_argument('--k', type=int, nargs='+', default=[10, 20, 100, 200], help='numbers of neighbours')
    parser.add_argument('--temperature', type=float, default=0.07)
    args = parser.parse_args()
    cfg, rows = compare(args, partial(weighted_knn, k=args.k, temperature=args.temperature, device=args.device))
    title = f'weighted kNN, T = {args.temperature:g}: top-1/top-5 in percent'
    publish('knn', args, cfg, rows, probe_table(rows, title), k=args.k, temperature=args.temperature)


if __name__ == '__main__':
    run(main)
