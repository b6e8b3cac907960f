"""Make the small weights that come with the package: digits encoders in half precision, their cards and their rows.

python tools/pack_small_weights.py [--runs FOLDER]

Runs of seed 0 that --runs lacks are trained first (a minute or two each), as by
``python tools/train.py CONFIG --seed 0 --work-dir FOLDER/<method>/<config>/0`` with OMP_NUM_THREADS=1; those of
tools/benchmarks/compare.py serve. Matrices and filters are rounded to float16 before anything is measured, so the figures are
those of the file; kNN accuracy must stay within 0.3 points of the run's. The same runs give the same bytes; another version of
PyTorch gives slightly other runs. Afterwards: python tools/model_zoo.py
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from threadpoolctl import threadpool_limits
from torch import nn

from mmkernel.engine import load_checkpoint, load_config
from mmkernel.evaluation import evaluate, few_label_scores, untrained_encoder
from mmkernel.zoo import Encoder, publish_checkpoint
from mmkernel.zoo.config_text import config_text
from mmkernel.zoo.files import read_checkpoint
from mmkernel.zoo.publish import add_row

sys.path.append(str(Path(__file__).resolve().parent / 'benchmarks'))
from side_by_side import Run, pretrain, shown  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / 'mmkernel/weights'
CONFIGS = ('sfrik/digits_L1', 'sfrik/digits_L2', 'sfrik/digits_L3', 'vicreg/digits', 'simclr/digits')
SEED = 0
LIMIT = 2_000_000  # bytes of all files: everyone who installs the package carries them
TOLERANCE = 0.3  # points of kNN accuracy; one of the 360 test images is 0.28
# Measured, not within the tolerance, and said in the row: with all labels, two images of 360 change sides.
EXCEPTIONS = {'sfrik/digits_L1': 0.6}
OURS = ('Results', 'Weights', 'Files', 'Source', 'License', 'Status', 'Note')  # keys of a row that this program writes

console = Console(highlight=False)


def round_to_half(backbone: nn.Module) -> None:
    """What the file will hold: vectors (batch norms, their statistics) keep full precision."""
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.ndim > 1:
                parameter.copy_(parameter.half().float())


def scores(cfg: Any, model: nn.Module) -> dict[str, dict[str, float]]:
    """{'knn' | 'linear': {'1', '4', 'all': percent}} on the digits held out, as in docs/compare.json."""
    cfg.evaluation.num_workers = 0
    with threadpool_limits(1):
        (row,) = evaluate(cfg, {'encoder': model}, few_label_scores, raw=False)
    return {kind: {shot: found['mean'] for shot, found in shots.items()} for kind, shots in row['scores'].items()}


def results(found: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Figures of the file for its row and its card."""
    source = f'run here, seed {SEED}, half precision: tools/pack_small_weights.py'
    tasks = {
        'Weighted kNN': ('knn', 'all'),
        'Weighted kNN, 1 label per class': ('knn', '1'),
        'Linear probe': ('linear', 'all'),
    }
    return [
        dict(Task=task, Dataset='digits', Metrics={'Top 1 Accuracy': round(found[kind][shot], 2)}, Source=source)
        for task, (kind, shot) in tasks.items()
    ]


def check_same_recipe(run: Run, meta: dict[str, Any]) -> None:
    """RuntimeError unless the run was one of this seed, finished, with the config as it is now."""
    then = load_config(run.folder / 'config.py')
    parts = ('model', 'train_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'data_preprocessor')
    old, new = (
        {part: config_text({part: cfg.get(part)}) for part in parts} for cfg in (then.to_dict(), run.cfg.to_dict())
    )
    changed = [part for part in parts if old[part] != new[part]]  # as texts: the order of operations counts
    if changed or meta['epoch'] != run.cfg.train_cfg.max_epochs or meta.get('seed') != SEED:
        raise RuntimeError(
            f'{shown(run.folder)} is not a finished run of {run.name} with seed {SEED} (epoch {meta["epoch"]}, seed '
            f'{meta.get("seed")}, changed since: {", ".join(changed) or "nothing"}): remove it to train again.'
        )


def drop_files(path: Path, name: str) -> None:
    """Take what an earlier call wrote out of a row; what people wrote stays."""
    text = path.read_text(encoding='utf-8')
    block = re.search(rf'^  - Name: {re.escape(name)}\n(?:    .*\n)*', text, re.MULTILINE)
    if block is None:
        raise RuntimeError(f'{shown(path)} has no row {name}.')
    kept = re.sub(rf'^    (?:{"|".join(OURS)}):.*\n(?:    [ -].*\n)*', '', block[0], flags=re.MULTILINE)
    path.write_text(text[: block.start()] + kept + text[block.end() :], encoding='utf-8')


def pack(run: Run, folder: Path, root: Path = ROOT) -> dict[str, Any]:
    """Write the file, the card and the row of a finished run; what was measured."""
    config = f'configs/{run.name}.py'
    name = run.name.replace('/', '_')
    meta = read_checkpoint(run.checkpoint())['meta']
    check_same_recipe(run, meta)
    model = untrained_encoder(run.cfg)
    load_checkpoint(model, run.checkpoint())
    full = scores(run.cfg, model)
    round_to_half(model.backbone)
    half = scores(run.cfg, model)
    worst, shot = max((abs(full['knn'][shot] - half['knn'][shot]), shot) for shot in full['knn'])
    if worst > EXCEPTIONS.get(run.name, TOLERANCE):
        raise RuntimeError(f'{name}: half precision changes kNN accuracy by {worst:.2f} points, more than {TOLERANCE}.')
    command = f'python tools/train.py {config} --seed {SEED}'
    facts = dict(
        name=name, license='Apache-2.0', source=f'trained with this package: {command}', config_name=config,
        command=command, seed=str(SEED), epochs=meta['epoch'],
        trained_on="scikit-learn's digits, the 1437 of the training split", metrics=results(half),
    )  # fmt: skip
    if worst > TOLERANCE:
        facts['note'] = (
            f'Half precision changes kNN accuracy with {shot} labels from {full["knn"][shot]:.2f} % to '
            f'{half["knn"][shot]:.2f} %, more than the {TOLERANCE} points that the other files keep within.'
        )
    before = set(folder.glob(f'{name}-*'))
    done = publish_checkpoint(
        Encoder.from_config(run.cfg, model.backbone, **facts), run.checkpoint(), folder, name, half=True,
        url='package:weights',
    )  # fmt: skip
    if done.difference:
        raise RuntimeError(f'{done.path} gives other features than were measured, by {done.difference:.2g}.')
    for old in before - {done.path, done.card}:  # only now that the new file is there
        old.unlink()
    if 'note' in facts:
        done.entry['Note'] = facts['note']
    drop_files(root / Path(config).with_name('metafile.yml'), name)
    add_row(root / Path(config).with_name('metafile.yml'), done.entry)
    return dict(path=done.path, full=full, half=half, worst=worst)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--runs', type=Path, default=ROOT / 'work_dirs/compare', help='folder of the runs')
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    runs = [Run(name, ROOT / f'configs/{name}.py', args.runs.resolve() / name / f'{SEED}', SEED) for name in CONFIGS]
    last = f'epoch_{runs[0].cfg.train_cfg.max_epochs}.pth'
    pretrain([run for run in runs if not (run.finished and (run.folder / last).is_file())], console)
    total = 0
    for run in runs:
        found = pack(run, WEIGHTS)
        total += found['path'].stat().st_size
        shots = ', '.join(
            f'{shot}: {found["full"]["knn"][shot]:.2f} -> {found["half"]["knn"][shot]:.2f}'
            for shot in found['full']['knn']
        )
        console.print(f'{found["path"].name}: kNN by labels per class, full -> half precision: {shots}')
    console.print(f'{total} bytes in all (at most {LIMIT}). Now: python tools/model_zoo.py')
    if total > LIMIT:
        raise RuntimeError(f'the files have {total} bytes in all, more than {LIMIT}.')


if __name__ == '__main__':
    try:
        main()
    except (RuntimeError, ValueError, OSError, json.JSONDecodeError) as error:
        console.print(f'[red]packing failed:[/] {escape(str(error))}', soft_wrap=True)
        sys.exit(1)
