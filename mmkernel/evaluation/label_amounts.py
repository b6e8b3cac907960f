"""Fine-tuning on parts of the labels: how far few of them go when the encoder learns too."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmkernel.checks import check_distinct
from mmkernel.evaluation.fine_tuning import fine_tune
from mmkernel.evaluation.judges import metric_of


def with_labels(protocol: Any, **amount: Any) -> Any:
    """The config ``protocol`` trained on a ``Subset`` (names, fraction or per_class, seed) of its training images.

    A batch is never larger than the subset, and the number of epochs stays.
    """
    cfg = copy.deepcopy(protocol)
    loader = cfg['train_dataloader']
    loader['dataset']['source'] = dict(type='Subset', source=loader['dataset']['source'], **amount)
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

    The metric is ``evaluation.metric`` of the config, else 'top1', or 'map11' where images have several classes: those have no
    class to draw by, only a fraction of all.
    ``amounts``: what ``Subset`` takes, e.g. ``dict(fraction=0.01)``, ``dict(per_class=4)``; an empty one is the config's own
    training set. A seed draws the subset, the head and the order of images. Runs and weights go below ``folder``;
    ``resume``: go on with those that an earlier call has left there, which are refused otherwise.
    """
    check_distinct(seeds=seeds)
    found, done, metric = {}, 0, metric_of(cfg)
    for amount in amounts:
        name = describe_amount(amount)
        values = []
        for seed in seeds:
            run = with_labels(cfg, **amount, seed=seed) if amount else copy.deepcopy(cfg)
            run['randomness'] = {**run.get('randomness', {}), 'seed': seed}
            run['work_dir'] = str(Path(folder) / name.replace(' ', '_').replace('%', 'percent') / str(seed))
            result = fine_tune(run, checkpoint, resume)
            values.append(result['last'][metric])
            done += 1
            if progress:
                progress(done, len(amounts) * len(seeds))
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        summary = dict(metric=metric, mean=float(np.mean(values)), sd=spread, values=values)
        found[name] = dict(summary, images=result['images'])
    return found


def describe_amount(amount: Mapping[str, Any]) -> str:
    """'1 %', '4 per class', the name of a list, or 'all' as the config has it."""
    if 'fraction' in amount:
        return f'{100 * amount["fraction"]:g} %'
    if 'per_class' in amount:
        return f'{amount["per_class"]} per class'
    return Path(amount['names']).stem if 'names' in amount else 'as configured'
