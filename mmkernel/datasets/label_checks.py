"""Labels and targets of a source: whole numbers, or an error that names the record."""

from numbers import Integral
from typing import Any

import numpy as np


def whole_labels(labels: Any, source: Any) -> np.ndarray:
    """(N,) int64 of whole numbers from -1 on; ValueError naming the first record with anything else."""
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise ValueError(f'{type(source).__name__}: labels have shape {labels.shape}; expected (N,), one per image.')
    wrong = ~_whole(labels)
    if not wrong.any():
        wrong = (labels < -1) | (labels > np.iinfo(np.int32).max)
    _refuse(source, labels, wrong, 'a whole number from -1 on')
    return labels.astype(np.int64)


def whole_targets(targets: Any, source: Any) -> np.ndarray:
    """(N, C) int8 of 1, 0 and -1, or of truth values; ValueError naming the first record with anything else."""
    targets = np.asarray(targets)
    if targets.ndim != 2:
        raise ValueError(
            f'{type(source).__name__}: targets have shape {targets.shape}; expected (N, C), 1 where the class is there, 0 '
            'where it is not, -1 where it does not count. One class per image goes into labels.'
        )
    targets = targets.astype(np.int8) if targets.dtype == bool else targets
    wrong = ~_whole(targets)
    if not wrong.any():
        wrong = ~np.isin(targets, (-1, 0, 1))
    _refuse(source, targets, wrong.any(axis=1), '1, 0 or -1 for each class')
    return targets.astype(np.int8)


def check_labels(source: Any) -> None:
    """ValueError unless labels and targets of a whole source fit each other, its length and its classes."""
    count, C, targets = len(source), len(source.classes), targets_of(source)
    labels = whole_labels(source.labels, source)  # once more: they may be a property of the class
    if len(labels) != count:
        raise ValueError(
            f'{type(source).__name__} has {count} images, but {len(labels)} labels; expected one per image.'
        )
    if C:
        _refuse(source, labels, labels >= C, f'-1 to {C - 1}, since there are {C} classes')
    if targets is not None and targets.shape != (count, C or targets.shape[1]):
        raise ValueError(
            f'{type(source).__name__} has targets of shape {targets.shape}; expected ({count}, {C}): images, classes.'
        )


def targets_of(source: Any) -> np.ndarray | None:
    """``targets`` (N, C) of a source whose images have several classes each; None of any other."""
    targets = getattr(source, 'targets', None)
    return targets if isinstance(targets, np.ndarray) and targets.ndim == 2 else None


def _whole(values: np.ndarray) -> np.ndarray:
    """Which of them are whole numbers; no truth value or word is one."""
    if values.dtype.kind in 'iu' or not values.size:
        return np.ones(values.shape, bool)
    if values.dtype.kind == 'f':
        return np.isfinite(values) & (values == np.floor(values))
    whole = [
        isinstance(value, Integral) and not isinstance(value, bool) or isinstance(value, float) and value.is_integer()
        for value in values.flat
    ]
    return np.array(whole).reshape(values.shape)


def _refuse(source: Any, values: np.ndarray, wrong: np.ndarray, expected: str) -> None:
    """ValueError naming the first record that is ``wrong``, if any is."""
    if not wrong.any():
        return
    i, more = int(wrong.argmax()), int(wrong.sum()) - 1
    try:
        name = source.name(i)
    except (AttributeError, NotImplementedError, LookupError, TypeError):  # a source under construction
        name = f'record {i}'
    raise ValueError(
        f'{type(source).__name__}: the {"label" if values.ndim == 1 else "targets"} of {name} (record {i})'
        + (f', and those of {more} more' if more else '')
        + f': {values[i].tolist() if values.dtype.kind != "O" else values[i]!r}; expected {expected}. Number the classes 0, 1, 2, '
        '... in the order of `classes`, -1 for none; several classes of one image, or parts of them, go into targets (N, C).'
    )
