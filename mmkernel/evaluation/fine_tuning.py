"""Classifiers trained on images: linear on a frozen encoder with augmentation, or fine-tuned, on all labels or on few."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from mmengine.dist import get_dist_info

from mmkernel.checks import NonFiniteLossError, check_distinct
from mmkernel.evaluation.classifier_metrics import accuracy_history, main_metrics, metric_of, metrics_of
from mmkernel.evaluation.metrics import mean_and_sd
from mmkernel.registry import DATASETS, RUNNERS


def with_encoder(protocol: Any, pretraining: Any) -> Any:
    """The config ``protocol`` with the backbone, normalisation and channel order of the config ``pretraining``."""
    cfg = copy.deepcopy(protocol)
    if (kind := cfg['model'].get('type')) != 'Classifier':
        raise ValueError(f"The protocol's model is a {kind}; expected a Classifier, as in configs/benchmarks.")
    cfg['model']['backbone'] = copy.deepcopy(pretraining['model']['backbone'])
    for key in ('data_preprocessor', 'channels_last'):
        if key in pretraining:
            cfg[key] = copy.deepcopy(pretraining[key])
    return cfg


def fine_tune(cfg: Any, checkpoint: str | Path | None = None, resume: bool | str | Path = False) -> dict:
    """Train the Classifier of ``cfg`` on the encoder in ``checkpoint`` (None: an untrained one) with the Runner.

    Returns ``dict(top1=, top5=, last=, best=, history=, images=, width=, checkpoint=)``: top1 and top5 (map11 and map) are the
    last epoch's; ``best`` is the best epoch on the test set by ``evaluation.metric``, which the published protocols print.
    """
    cfg = copy.deepcopy(cfg)
    if checkpoint is not None:
        hook = dict(type='BackboneWeightsHook', checkpoint=str(checkpoint))
        cfg.setdefault('default_hooks', {})['backbone_weights'] = hook
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

    A batch larger than the training set (a small fraction of a small set) becomes the whole set.
    """
    loader = cfg['train_dataloader']
    parts = dict(training=loader['dataset']['source'], test=cfg.get('evaluation', {}).get('test'))
    sources = {name: DATASETS.build(source) for name, source in parts.items() if source is not None}
    metrics_of(cfg['model']).check(sources, cfg['model']['num_classes'])
    metric_of(cfg)  # an unknown one is refused before the run
    images = len(sources['training'])
    loader['batch_size'] = min(loader['batch_size'], images // get_dist_info()[1])
    return images


def with_labels(protocol: Any, **amount: Any) -> Any:
    """The config ``protocol`` trained on a ``Subset`` (names, fraction or per_class, seed) of its training images."""
    cfg = copy.deepcopy(protocol)
    dataset = cfg['train_dataloader']['dataset']
    dataset['source'] = dict(type='Subset', source=dataset['source'], **amount)
    return cfg


def semi_supervised(
    cfg: Any,
    checkpoint: str | Path | None,
    amounts: Sequence[Mapping[str, Any]],
    seeds: Sequence[int] = (0, 1, 2),
    folder: str | Path = 'work_dirs/benchmarks/semi_supervised',
    progress: Callable[[int, int], None] | None = None,
    resume: bool = False,
) -> dict[str, dict]:
    """{amount: dict(metric=, mean=, sd=, values=, images=)} of the last epoch, fine-tuned on each amount of labels and seed.

    The metric is ``evaluation.metric`` of the config, else 'top1', or 'map11' where images have several classes.
    ``amounts``: what ``Subset`` takes, e.g. ``dict(fraction=0.01)``, ``dict(per_class=4)``; an empty one is the config's own
    training set. A seed draws the subset, the head and the order of images. Runs and weights go below ``folder``;
    ``resume``: go on with those of an earlier call there, which are refused otherwise.
    """
    check_distinct(seeds=seeds)
    found, metric = {}, metric_of(cfg)
    for number, amount in enumerate(amounts):
        name, values = describe_amount(amount), []
        for seed in seeds:
            run = with_labels(cfg, **amount, seed=seed) if amount else copy.deepcopy(cfg)
            run['randomness'] = {**run.get('randomness', {}), 'seed': seed}
            run['work_dir'] = str(Path(folder) / name.replace(' ', '_').replace('%', 'percent') / str(seed))
            result = fine_tune(run, checkpoint, resume)
            values.append(result['last'][metric])
            if progress:
                progress(number * len(seeds) + len(values), len(amounts) * len(seeds))
        found[name] = dict(metric=metric, **mean_and_sd(values), images=result['images'])
    return found


def describe_amount(amount: Mapping[str, Any]) -> str:
    """'1 %', '4 per class', the name of a list, or 'as configured'."""
    if 'fraction' in amount:
        return f'{100 * amount["fraction"]:g} %'
    if 'per_class' in amount:
        return f'{amount["per_class"]} per class'
    return Path(amount['names']).stem if 'names' in amount else 'as configured'


def choose_options(
    cfg: Any,
    checkpoint: str | Path | None,
    options: Mapping[str, Sequence],
    held_out: float = 0.1,
    seed: int = 0,
    folder: str | Path = 'work_dirs/benchmarks/options',
    progress: Callable[[int, int], None] | None = None,
    resume: bool = False,
) -> tuple[dict[str, Any], list[dict]]:
    """The combination of ``options`` with the highest last-epoch figure on ``held_out`` of each training class, and all tried.

    The figure is that of ``semi_supervised``. ``options``: {dotted key of the config: values}. Every combination is trained on
    the rest of the training images (a ``Subset`` and its complement); of equal figures the first wins. A run whose loss is
    not finite has None and never wins. ``resume``: go on with the runs of an earlier call in ``folder``, refused otherwise.
    """
    if not options or any(not isinstance(v, (list, tuple)) or not v for v in options.values()):
        raise ValueError(f'options={dict(options)}; expected at least one {{key: [values]}}, as text KEY=VALUE,VALUE.')
    if not 0 < held_out < 1:
        raise ValueError(f'held_out={held_out}; expected a fraction of each class between 0 and 1, such as 0.1.')
    chosen_by = with_labels(cfg, fraction=held_out, seed=seed)['train_dataloader']['dataset']['source']
    trial, metric = with_labels(cfg, fraction=held_out, seed=seed, complement=True), metric_of(cfg)
    trial['evaluation']['test'] = chosen_by
    combinations, tried = list(product(*options.values())), []
    for number, values in enumerate(combinations):
        run, given = copy.deepcopy(trial), dict(zip(options, values, strict=True))
        run.merge_from_dict(given)
        run['work_dir'] = str(Path(folder) / str(number))
        try:
            figure = fine_tune(run, checkpoint, resume)['last'][metric]
        except NonFiniteLossError:
            figure = None
        tried.append({'options': given, metric: figure})
        if progress:
            progress(number + 1, len(combinations))
    best = max(tried, key=lambda each: -math.inf if each[metric] is None else each[metric])
    if best[metric] is None:
        raise ValueError(f'Every one of the {len(tried)} combinations diverged: offer smaller learning rates.')
    return best['options'], tried
