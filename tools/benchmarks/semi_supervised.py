"""Fine-tune the encoder of a checkpoint on few labels: a fraction of a set, labels per class, or a list of files.

python tools/benchmarks/semi_supervised.py configs/sfrik/digits_L3.py CHECKPOINT \\
    --protocol configs/benchmarks/semi_digits.py --per-class 1 4 --seeds 0 1 2
torchrun --nproc_per_node 8 tools/benchmarks/semi_supervised.py CONFIG CHECKPOINT \\
    --protocol configs/benchmarks/semi_sfrik_1percent.py --seeds 0

Without --fraction, --per-class and --names the protocol's own training set is taken (ImageNet's public lists).
"""

from __future__ import annotations

from classify import arguments, console, encoders, protocol
from console_errors import run
from mmengine.dist import is_main_process
from rich.progress import Progress

from mmkernel.engine.launch import leave_processes
from mmkernel.evaluation import METRICS, amount_table, report, save_report, semi_supervised


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument('--fraction', type=float, nargs='+', default=[], help='of each class, e.g. 0.01 0.1')
    parser.add_argument('--per-class', type=int, nargs='+', default=[], help='labels per class, e.g. 1 4')
    parser.add_argument('--names', nargs='+', default=[], metavar='FILE', help='lists of file names, one per line')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='of subset, head and order')
    args = parser.parse_args()
    cfg, folder = protocol(args)
    amounts = [
        *(dict(fraction=value) for value in args.fraction),
        *(dict(per_class=value) for value in args.per_class),
        *(dict(names=value) for value in args.names),
    ] or [{}]
    if 'log_level' not in (args.cfg_options or {}):
        cfg.log_level = 'WARNING'  # many short runs; the log files in the folder have every line
    rows = []
    with Progress(console=console, transient=True, disable=not is_main_process()) as bar:
        for name, checkpoint in encoders(args).items():
            task = bar.add_task(f'runs: {name}', total=None)
            note = lambda done, total, task=task: bar.update(task, completed=done, total=total)  # noqa: E731
            scores = semi_supervised(cfg, checkpoint, amounts, args.seeds, folder / name.split()[0], note, args.resume)
            rows.append(dict(name=name, scores=scores))
    if is_main_process():
        metric = METRICS[next(iter(rows[0]['scores'].values()))['metric']]
        console.print(amount_table(rows, f'fine-tuned, {metric} of the last epoch in percent'))
        settings = dict(protocol=args.protocol, seeds=args.seeds, amounts=amounts, cfg_options=args.cfg_options)
        content = report('semi_supervised', rows, args.config, args.checkpoint, args.seeds[0], **settings)
        console.print(
            f'written: {save_report(folder / "semi_supervised.json", content)}', highlight=False, soft_wrap=True
        )
    leave_processes()


if __name__ == '__main__':
    run(main)
