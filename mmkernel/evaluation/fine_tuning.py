"""Classifiers trained on images: linear on a frozen encoder with augmentation, or fine-tuned."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce, get_dist_info
from torch import nn

from mmkernel.evaluation.features import evaluation_loader
from mmkernel.evaluation.judges import JUDGES, METRICS, judge_of, main_metrics, metric_of
from mmkernel.evaluation.labels import classes_of, labels_of, renumber
from mmkernel.registry import DATASETS, RUNNERS

HOOK = 'backbone_weights'


def with_encoder(protocol: Any, pretraining: Any) -> Any:
    """The config ``protocol`` with backbone, normalisation and channel order of the pretraining it is to judge."""
    cfg = copy.deepcopy(protocol)
    if cfg['model'].get('type') != 'Classifier':
        raise ValueError(
            f"The protocol's model is a {cfg['model'].get('type')}; expected a Classifier, as in configs/benchmarks."
        )
    cfg['model']['backbone'] = copy.deepcopy(pretraining['model']['backbone'])
    for key in ('data_preprocessor', 'channels_last'):
        if key in pretraining:
            cfg[key] = copy.deepcopy(pretraining[key])
    return cfg


def fine_tune(cfg: Any, checkpoint: str | Path | None = None, resume: bool | str | Path = False) -> dict:
    """Train the Classifier of ``cfg`` on the encoder in ``checkpoint`` (None: an untrained one) with the Runner.

    Returns ``dict(top1=, top5=, last=, best=, history=, images=, width=, checkpoint=)``: top1 and top5 are the last epoch's
    (for images of several classes map11 and map); ``best`` is the best epoch on the test set by ``evaluation.metric``, which
    the published protocols print. Every rank gets the same.
    """
    cfg = copy.deepcopy(cfg)
    if checkpoint is not None:
        hooks = cfg.setdefault('default_hooks', {})
        hooks[HOOK] = dict(type='BackboneWeightsHook', checkpoint=str(checkpoint))
    cfg['work_dir'] = cfg.get('work_dir') or f'work_dirs/benchmarks/{Path(cfg.get("filename") or "classifier").stem}'
    if resume:
        cfg['resume'], cfg['load_from'] = True, None if resume is True else str(resume)
    images = check_labels(cfg)
    runner = RUNNERS.build(cfg)
    runner.train()
    found = accuracy_history(runner.message_hub, metric_of(cfg))
    last = Path(runner.work_dir) / f'epoch_{runner.epoch}.pth'
    top = {name: found['last'][name] for name in main_metrics(found['last'])}
    width = getattr(runner.model, 'module', runner.model).head.in_features
    return dict(**top, **found, images=images, width=width, checkpoint=str(last) if last.is_file() else None)


def check_labels(cfg: Any) -> int:
    """Number of training images; ValueError unless training and test images have what the model's objective reads.

    One class each: labels in 0 .. num_classes - 1. Several: ``targets`` of num_classes columns, of the same classes. Shrinks
    a batch that is larger than the training set, which small fractions of small sets make.
    """
    loader = cfg['train_dataloader']
    parts = dict(training=loader['dataset']['source'], test=cfg.get('evaluation', {}).get('test'))
    sources = {name: DATASETS.build(source) for name, source in parts.items() if source is not None}
    judge_of(cfg['model']).check(sources, cfg['model']['num_classes'])
    metric_of(cfg)  # a wrong one ends the run here, not after it
    images = len(sources['training'])
    share = images // get_dist_info()[1]
    if loader['batch_size'] > share:
        loader['batch_size'] = share
    return images


@torch.no_grad()
def accuracy(model: nn.Module, part: Mapping[str, Any], classes: Sequence[str] = ()) -> dict[str, float]:
    """What the judge of the model's objective says of ``part['test']``: ``dict(top1=, top5=, mean_per_class=, loss=)`` in
    percent where an image has one class, ``dict(map11=, map=, loss=)`` where it has several.

    ``part``: the ``evaluation`` of a config; ``classes``: the names of the training classes, under whose numbers the test
    images are judged. With W processes each takes every W-th image. ValueError for a head that has never been trained,
    whose figures would be chance.
    """
    if int(model.steps) == 0:
        raise ValueError(
            'The head of this classifier has never been trained: its accuracy is chance and says nothing about the '
            'encoder. Train it first, or name a checkpoint from the end of a training.'
        )
    rank, world_size = get_dist_info()
    source = DATASETS.build(part['test']) if isinstance(part['test'], Mapping) else part['test']
    given, reads = classes_of(source), model.objective.reads
    renumber(torch.as_tensor(labels_of(source)), given, classes)  # refused before the work, not after it
    settings = {key: part[key] for key in ('transform', 'batch_size', 'num_workers') if key in part}
    judge = JUDGES[reads](model.num_classes, len(source))
    rows = range(rank, len(source), world_size)
    for batch in evaluation_loader(source, rows=rows, **settings) if len(rows) else ():
        answers = {**batch, reads: renumber(batch[reads], given, classes)}
        judge.add(model.extract(batch['inputs'], stage='head').float().cpu(), answers)
    sums = judge.sums.to(next(model.parameters()).device)  # where collectives work
    all_reduce(sums)
    return judge.scores(sums.cpu())


def accuracy_history(message_hub: Any, metric: str | None = None) -> dict[str, Any]:
    """``dict(last=, best=, history=)`` of what AccuracyHook has recorded: dicts of epoch and the keys of ``accuracy``.

    ``metric``: by which the best is chosen; None: top-1, or 11-point mAP.
    """
    scalars = {
        name.removeprefix('test/'): each for name, each in message_hub.log_scalars.items() if name.startswith('test/')
    }
    names = ['epoch', *(name for name in METRICS if name in scalars)]
    columns = [scalars[name].data[0].tolist() for name in names]
    history = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    for row in history:
        row['epoch'] = int(row['epoch'])
    metric = metric or main_metrics(history[0])[0]
    return dict(last=history[-1], best=max(history, key=lambda row: row[metric]), history=history)
