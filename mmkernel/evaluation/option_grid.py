"""Settings of a classifier's training, chosen without the test set."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from mmkernel.evaluation.fine_tuning import fine_tune
from mmkernel.evaluation.judges import metric_of


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

    The figure is ``evaluation.metric`` of the config; without one top-1, or 11-point mAP where images have several classes
    (and are drawn from all at once).
    ``options``: {dotted key of the config: values}. Every combination is trained on the rest of the training images (a
    ``Subset`` and its complement); the first of equals wins. A run whose loss is not finite has None and never wins.
    ``resume``: go on with what an earlier call has left in ``folder``, which is refused otherwise.
    """
    if not options or any(not isinstance(v, (list, tuple)) or not v for v in options.values()):
        raise ValueError(
            f'options={dict(options)}; expected at least one {{key: [values]}} to choose from, on the command line '
            'KEY=VALUE,VALUE.'
        )
    if not 0 < held_out < 1:
        raise ValueError(f'held_out={held_out}; expected a fraction of each class between 0 and 1, such as 0.1.')
    trial = copy.deepcopy(cfg)
    part = dict(type='Subset', source=trial['train_dataloader']['dataset']['source'], fraction=held_out, seed=seed)
    trial['train_dataloader']['dataset']['source'] = dict(part, complement=True)
    trial['evaluation']['test'] = part
    metric = metric_of(cfg)
    combinations, tried = list(product(*options.values())), []
    for number, values in enumerate(combinations):
        run = copy.deepcopy(trial)
        given = dict(zip(options, values, strict=True))
        run.merge_from_dict(given)
        run['work_dir'] = str(Path(folder) / str(number))
        tried.append({'options': given, metric: _score(run, checkpoint, metric, resume)})
        if progress:
            progress(number + 1, len(combinations))
    best = max(tried, key=lambda each: -math.inf if each[metric] is None else each[metric])
    if best[metric] is None:
        raise ValueError(f'Every one of the {len(tried)} combinations diverged: offer smaller learning rates.')
    return best['options'], tried


def _score(cfg: Any, checkpoint: str | Path | None, metric: str, resume: bool) -> float | None:
    try:
        return fine_tune(cfg, checkpoint, resume)['last'][metric]
    except RuntimeError as error:
        if type(error).__name__ != 'NonFiniteLossError':  # the engine's, which this room must not import
            raise
        return None
