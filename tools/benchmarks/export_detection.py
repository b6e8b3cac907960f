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
from mmkernel.writing import set_aside, writable
from mmkernel.zoo import Encoder, export_model
from mmkernel.zoo.export_targets import detector_weights

FRAMEWORKS = {'mmdetection': 'mmdet', 'mmsegmentation': 'mmseg', 'detectron2': 'detectron2'}
console = Console()


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
    writable(out, 'detector.pth')
    encoder, target = Encoder.from_config(cfg, model.backbone), FRAMEWORKS[args.framework]
    theirs = detector_weights(encoder, target)
    names = [[a, b, list(theirs[b].shape)] for a, b in zip(encoder.backbone.state_dict(), theirs, strict=True)]
    table = Table('here', args.framework, 'shape', title=f'{len(names)} tensors', box=SIMPLE_HEAD, pad_edge=False)
    for ours, there, shape in [*names[:8], ('...', '...', '...'), *names[-6:]]:  # all of them are in the JSON
        table.add_row(ours, there, str(shape))
    console.print(table)
    if out.exists():
        set_aside(out)
    found = export_model(encoder, target, out)
    console.print(f'written: {found.path} ({found.verdict})', highlight=False)
    about = dict(framework=args.framework, status='not loaded in target', config=args.config)
    written = save_report(out.with_suffix('.json'), dict(**about, checkpoint=args.checkpoint, names=names))
    console.print(f'written: {written}', highlight=False)


if __name__ == '__main__':
    run(main)
