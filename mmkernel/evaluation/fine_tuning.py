"""Classifiers trained on images: linear on a frozen encoder with augmentation, or fine-tuned."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, get_dist_info
from torch import nn

from mmkernel.evaluation.features import evaluation_loader
from mmkernel.evaluation.inputs import as_labels
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


def fine_tune(cfg: Any, checkpoint: str | Path | None = None, resume: bool | str = False) -> dict:
    """Train the Classifier of ``cfg`` on the encoder in ``checkpoint`` (None: an untrained one) with the Runner.

    Returns ``dict(top1=, top5=, last=, best=, history=, images=, width=, checkpoint=)``: top1 and top5 are the last epoch's;
    ``best`` is the best epoch on the test set, which the published protocols print. Every rank gets the same.
    """
    cfg = copy.deepcopy(cfg)
    if checkpoint is not None:
        hooks = cfg.setdefault('default_hooks', {})
        hooks[HOOK] = dict(type='BackboneWeightsHook', checkpoint=str(checkpoint))
    cfg['work_dir'] = cfg.get('work_dir') or f'work_dirs/benchmarks/{Path(cfg.get("filename") or "classifier").stem}'
    if resume:
        cfg['resume'], cfg['load_from'] = True, resume if isinstance(resume, str) else None
    images = check_labels(cfg)
    runner = RUNNERS.build(cfg)
    runner.train()
    found = accuracy_history(runner.message_hub)
    last = Path(runner.work_dir) / f'epoch_{runner.epoch}.pth'
    top = {name: found['last'][name] for name in ('top1', 'top5')}
    width = getattr(runner.model, 'module', runner.model).head.in_features
    return dict(**top, **found, images=images, width=width, checkpoint=str(last) if last.is_file() else None)


def check_labels(cfg: Any) -> int:
    """Number of training images; ValueError unless training and test labels lie in 0 .. num_classes - 1.

    Shrinks a batch that is larger than the training set, which small fractions of small sets make.
    """
    classes, loader = cfg['model']['num_classes'], cfg['train_dataloader']
    parts = dict(training=loader['dataset']['source'], test=cfg.get('evaluation', {}).get('test'))
    images = 0
    for name, source in parts.items():
        if source is None:
            continue
        labels = torch.as_tensor(DATASETS.build(source).labels)
        largest = int(as_labels(labels, len(labels), f'{name} labels').max())
        if largest >= classes:
            raise ValueError(
                f'The {name} images have labels up to {largest}, but model.num_classes={classes}; expected at least '
                f'{largest + 1}: --cfg-options model.num_classes={largest + 1}.'
            )
        images = len(labels) if name == 'training' else images
    share = images // get_dist_info()[1]
    if loader['batch_size'] > share:
        loader['batch_size'] = share
    return images


@torch.no_grad()
def accuracy(model: nn.Module, part: Mapping[str, Any]) -> dict[str, float]:
    """``dict(top1=, top5=, mean_per_class=, loss=)`` of a Classifier on ``part['test']``: percent right, cross-entropy.

    ``part``: the ``evaluation`` of a config. With W processes each takes every W-th image. ValueError for a head that has
    never been trained, whose figures would be chance.
    """
    if int(model.steps) == 0:
        raise ValueError(
            'The head of this classifier has never been trained: its accuracy is chance and says nothing about the '
            'encoder. Train it first, or name a checkpoint from the end of a training.'
        )
    rank, world_size = get_dist_info()
    source = DATASETS.build(part['test']) if isinstance(part['test'], Mapping) else part['test']
    settings = {key: part[key] for key in ('transform', 'batch_size', 'num_workers') if key in part}
    classes = model.num_classes
    sums = torch.zeros(2 * classes + 2, dtype=torch.float64)  # right in each class, images of each, among five, loss
    rows = range(rank, len(source), world_size)
    for batch in evaluation_loader(source, rows=rows, **settings) if len(rows) else ():
        logits = model.extract(batch['inputs'], stage='head').float().cpu()
        label = batch['label']
        hit = logits.topk(min(5, classes), dim=1).indices == label[:, None]
        counts = [torch.bincount(part, minlength=classes) for part in (label[hit[:, 0]], label)]
        loss = F.cross_entropy(logits, label, reduction='sum')
        sums += torch.cat([*counts, hit.sum()[None], loss[None]]).double()
    sums = sums.to(next(model.parameters()).device)  # where collectives work
    all_reduce(sums)
    right, of_class, (among, loss) = sums.cpu().split([classes, classes, 2])
    images, seen = of_class.sum(), of_class > 0
    return dict(
        top1=float(100 * right.sum() / images),
        top5=float(100 * among / images),
        mean_per_class=float(100 * (right[seen] / of_class[seen]).mean()),
        loss=float(loss / images),
    )


def accuracy_history(message_hub: Any) -> dict[str, Any]:
    """``dict(last=, best=, history=)`` of what AccuracyHook has recorded: dicts of epoch and the keys of ``accuracy``."""
    names = ('epoch', 'top1', 'top5', 'mean_per_class', 'loss')
    columns = [message_hub.get_scalar(f'test/{name}').data[0].tolist() for name in names]
    history = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    for row in history:
        row['epoch'] = int(row['epoch'])
    return dict(last=history[-1], best=max(history, key=lambda row: row['top1']), history=history)
