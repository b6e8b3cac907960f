"""Weights of a backbone for mmdetection, mmsegmentation or detectron2, with the table of names.

python tools/benchmarks/export_detection.py configs/sfrik/r50_L3_q32768.py CHECKPOINT --framework detectron2
"""

import argparse
from pathlib import Path

from console_errors import run
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mmkernel.engine import load_checkpoint, load_config
from mmkernel.evaluation import save_report, untrained_encoder
from mmkernel.zoo import FRAMEWORKS, export_detection, key_table, resnet_depth

console = Console()


def names(rows: list, framework: str, depth: int) -> Table:
    """The first and last names; all of them are in the JSON."""
    title = f'ResNet-{depth} for {framework}: {len(rows)} tensors (not loaded in target)'
    table = Table('here', framework, 'shape', title=title, title_justify='left', box=SIMPLE_HEAD, pad_edge=False)
    for ours, theirs, shape in [*rows[:8], ('...', '...', '...'), *rows[-6:]]:
        table.add_row(ours, theirs, str(shape))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description='Export a backbone for detection and segmentation frameworks.')
    parser.add_argument('config', help='the config of the pretraining')
    parser.add_argument('checkpoint', help="its weights; 'none': untrained, to look at the names")
    parser.add_argument('--framework', choices=FRAMEWORKS, required=True)
    parser.add_argument('--out', type=Path, help='default: <checkpoint>_<framework>.pth or .pkl')
    args = parser.parse_args()
    cfg = load_config(args.config)
    model = untrained_encoder(cfg)
    if args.checkpoint.lower() != 'none':
        console.print(f'{args.checkpoint}: {load_checkpoint(model, args.checkpoint)}', highlight=False)
    suffix = '.pkl' if args.framework == 'detectron2' else '.pth'
    stem = Path(args.config if args.checkpoint.lower() == 'none' else args.checkpoint).with_suffix('')
    out = args.out or stem.with_name(f'{stem.name}_{args.framework}{suffix}')
    state = model.backbone.state_dict()
    pixels = {key: list(cfg.data_preprocessor[key]) for key in ('mean', 'std')}
    rows = key_table(state, args.framework)
    console.print(names(rows, args.framework, resnet_depth(state)))
    console.print(f'written: {export_detection(state, out, args.framework, **pixels)}', highlight=False)
    about = dict(
        framework=args.framework, status='not loaded in target', config=args.config, checkpoint=args.checkpoint
    )
    table = save_report(out.with_suffix('.json'), about | dict(names=[[a, b, list(shape)] for a, b, shape in rows]))
    console.print(f'written: {table}', highlight=False)


if __name__ == '__main__':
    run(main)
