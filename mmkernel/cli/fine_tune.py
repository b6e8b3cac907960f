"""``mmkernel classify | semi``: a classifier on an encoder by a published protocol: linear, fine-tuned, or on few labels."""

import sys
from contextlib import nullcontext, redirect_stdout
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from rich.markup import escape

from mmkernel.cli.classifier_setup import NONE, All, Training, encoders, own_data, prepared
from mmkernel.cli.judging import Named, Numbers, Whole, Words, progress_bar
from mmkernel.cli.options import Device, Flag, Pairs, options_of, usable_device
from mmkernel.cli.terminal import Parameter, console, print_json, say
from mmkernel.engine import CheckpointError, load_weights, read_checkpoint, weights_of
from mmkernel.engine.launch import leave_processes
from mmkernel.evaluation import (
    METRICS,
    accuracy,
    amount_table,
    choose_options,
    fine_tune,
    probe_table,
    report,
    save_report,
    semi_supervised,
)
from mmkernel.evaluation.classifier_metrics import metrics_heading
from mmkernel.evaluation.labels import classes_of
from mmkernel.models import build_model
from mmkernel.registry import DATASETS


def classify(
    *checkpoint: Named,
    test_only: Flag = False,
    try_: Annotated[Pairs | None, Parameter(name='--try', metavar='KEY=V1,V2 ...')] = None,
    held_out: float = 0.1,
    device: Device = 'auto',
    given: All = NONE,
) -> None:
    """Train a classifier on an encoder by a published protocol: linear on a frozen one, or fine-tuned.

    The protocol, of configs/benchmarks, says how and on what, and --cfg-options changes it; the checkpoint gives backbone and
    normalisation.

    Args:
        test_only: the checkpoint is a classifier: measure it once more.
        try_: values to choose from on --held-out of the training images, in every combination.
        held_out: of each class, for --try.
        device: of --test-only; training takes the GPU that it is given.
    """
    here, options = usable_device(device), options_of(try_, '--try')
    if not test_only and here != usable_device():
        raise ValueError(
            f'--device {device} goes with --test-only; training takes a GPU that it sees (CUDA_VISIBLE_DEVICES).'
        )
    cfg, this, folder = prepared(checkpoint, given)
    if test_only:
        content = tested(cfg, encoders(this, False).get('trained encoder'), here)
    else:
        with redirect_stdout(sys.stderr) if given.json else nullcontext():
            rows = trained_rows(cfg, encoders(this, given.untrained), folder, options, held_out, given)
        if not is_main_process():
            leave_processes()
            return
        show_classified(rows, given, options)
        settings = dict(
            protocol=given.protocol, cfg_options=options_of(given.cfg_options) or None, **own_data(cfg, given)
        )
        content = report('classify', rows, this.config or 'of the checkpoint', this.checkpoint, given.seed, **settings)
        say(f'written: {escape(str(save_report(folder / "classify.json", content)))}')
    if given.json:
        print_json(content)
    leave_processes()


def trained_rows(
    cfg: Config, encoders: dict[str, str | None], folder: Path, options: dict[str, Any], held_out: float, given: Training
) -> list[dict[str, Any]]:  # fmt: skip
    rows = []
    for name, checkpoint in encoders.items():
        own, chosen, tried = deepcopy(cfg), {}, []
        own.work_dir = str(folder / name.split()[0])
        if options:
            trials = Path(own.work_dir) / 'tried'
            chosen, tried = choose_options(own, checkpoint, options, held_out, given.seed, trials, resume=given.resume)
            own.merge_from_dict(chosen)
        found = dict(fine_tune(own, checkpoint, given.resume), chosen=chosen, tried=tried)
        rows.append(dict(name=name, scores={'last epoch': found['last'], 'best epoch': found['best']}, **found))
    return rows


def show_classified(rows: list[dict[str, Any]], given: Training, options: dict[str, Any]) -> None:
    console.print(probe_table(rows, f'{Path(given.protocol).stem}: {metrics_heading(rows[0]["last"])} in percent'))
    for row in rows if 'mean_per_class' in rows[0]['last'] else ():
        console.print(f'{row["name"]}: {row["last"]["mean_per_class"]:.1f} % mean per class, last epoch')
    for row in rows if options else ():
        say(f'{row["name"]}: chosen on held-out training images: {escape(str(row["chosen"]))}')


def tested(cfg: Config, checkpoint: str | None, device: str) -> dict[str, Any]:
    """Accuracy of a classifier that was trained here; an encoder without a trained head is refused."""
    if checkpoint is None:
        raise CheckpointError('--test-only measures a classifier: name its epoch_N.pth instead of none.')
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
    found = accuracy(model.to(device), cfg.evaluation, classes)
    row = dict(name='classifier', width=model.head.in_features, scores=dict(test=found))
    console.print(probe_table([row], f'{Path(checkpoint).name}: {metrics_heading(found)} in percent'))
    return dict(checkpoint=checkpoint, rows=[row])


def semi(
    *checkpoint: Named,
    fraction: Numbers = (),
    per_class: Whole = (),
    names: Words = (),
    seeds: Whole = (0, 1, 2),
    given: All = NONE,
) -> None:
    """Fine-tune an encoder on few labels: a fraction of a set, labels per class, or lists of files; several draws.

    Without --fraction, --per-class and --names the protocol's own training set is taken (ImageNet's public lists).

    Args:
        fraction: of each class, e.g. 0.01 0.1.
        per_class: labels per class, e.g. 1 4.
        names: files with one file name on each line.
        seeds: of subset, head and order.
    """
    cfg, this, folder = prepared(checkpoint, given)
    amounts = [
        *(dict(fraction=value) for value in fraction),
        *(dict(per_class=value) for value in per_class),
        *(dict(names=value) for value in names),
    ] or [{}]
    options = options_of(given.cfg_options)
    if 'log_level' not in options:
        cfg.log_level = 'WARNING'  # many short runs; the log files in the folder have every line
    rows = []
    with redirect_stdout(sys.stderr) if given.json else nullcontext(), progress_bar() as bar:
        for name, path in encoders(this, given.untrained).items():
            task = bar.add_task(f'runs: {name}', total=None)
            note = lambda done, total, task=task: bar.update(task, completed=done, total=total)  # noqa: E731
            scores = semi_supervised(cfg, path, amounts, seeds, folder / name.split()[0], note, given.resume)
            rows.append(dict(name=name, scores=scores))
    if is_main_process():
        metric = METRICS[next(iter(rows[0]['scores'].values()))['metric']]
        console.print(amount_table(rows, f'fine-tuned, {metric} of the last epoch in percent'))
        settings = dict(protocol=given.protocol, seeds=list(seeds), amounts=amounts, cfg_options=options or None)
        settings |= own_data(cfg, given)
        config = this.config or 'of the checkpoint'
        content = report('semi_supervised', rows, config, this.checkpoint, seeds[0], **settings)
        say(f'written: {escape(str(save_report(folder / "semi_supervised.json", content)))}')
        if given.json:
            print_json(content)
    leave_processes()
