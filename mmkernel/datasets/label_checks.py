"""Labels and targets of a source: whole numbers, or an error that names the record."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

_ANY = 'a whole number from -1 on'
_FIX = (
    'Number the classes 0, 1, 2, ... in the order of `classes`, -1 for none; several classes of one image, or parts of them, '
    'go into targets (N, C).'
)


def called(source: Any, i: int) -> str:
    """The name of record i, as far as a source under construction knows it."""
    try:
        return source.name(i)
    except (AttributeError, NotImplementedError, LookupError, TypeError):
        return f'record {i}'


def whole_labels(labels: Any, source: Any) -> np.ndarray:
    """(N,) int64 of whole numbers from -1 on; ValueError naming the first record with anything else."""
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise ValueError(
            f'{type(source).__name__}: labels have shape {labels.shape}; expected (N,), one per image. {_FIX}'
        )
    wrong = ~_whole(labels)
    if not wrong.any():
        wrong = (labels < -1) | (labels > np.iinfo(np.int32).max)
    if wrong.any():
        raise _first_refused(source, labels, wrong, _ANY)
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
    if wrong.any():
        raise _first_refused(source, targets, wrong.any(axis=1), '1, 0 or -1 for each class')
    return targets.astype(np.int8)


def _whole(values: np.ndarray) -> np.ndarray:
    """Which of them are whole numbers; no truth value or word is one."""
    if values.dtype.kind in 'iu' or not values.size:
        return np.ones(values.shape, bool)
    if values.dtype.kind == 'f':
        return np.isfinite(values) & (values == np.floor(values))
    return np.array([whole_number(value) is not None for value in values.flat]).reshape(values.shape)


def _refused(source: Any, word: str, i: int, value: Any, expected: str, more: int = 0) -> ValueError:
    others = f', and those of {more} more' if more else ''
    return ValueError(
        f'{type(source).__name__}: the {word} of {called(source, i)} (record {i}){others}: {value!r}; expected {expected}. {_FIX}'
    )


def _first_refused(source: Any, values: np.ndarray, wrong: np.ndarray, expected: str) -> ValueError:
    i, word = int(wrong.argmax()), 'label' if values.ndim == 1 else 'targets'
    value = values[i].tolist() if values.dtype.kind != 'O' else values[i]
    return _refused(source, word, i, value, expected, int(wrong.sum()) - 1)


def checked_label(label: Any, source: Any, i: int) -> int:
    """One label; ValueError naming the record unless it is a whole number from -1 on, and one of the classes."""
    number = whole_number(label)
    C = number_of_classes(source)
    if number is None or number < -1 or (C and number >= C):
        raise _refused(source, 'label', i, label, f'a whole number from -1 to {C - 1}' if C else _ANY)
    return number


def whole_number(value: Any) -> int | None:
    """``value`` as an integer if it is one in any type but bool, else None."""
    if isinstance(value, (bool, np.bool_)):
        return None
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return int(value)
    try:
        return operator.index(value)
    except TypeError:
        return None


def number_of_classes(source: Any) -> int:
    """0 where the source names none."""
    classes = getattr(source, 'classes', None)
    return 0 if classes is None else len(classes)


def check_labels(source: Any) -> None:
    """ValueError unless labels and targets of a whole source fit each other, its length and its classes."""
    labels, targets = getattr(source, 'labels', None), getattr(source, 'targets', None)
    count, C, kind = len(source), number_of_classes(source), type(source).__name__
    if labels is not None:
        labels = whole_labels(labels, source)
        if count and len(labels) != count:  # no image at all has words of its own
            raise ValueError(f'{kind} has {count} images, but {len(labels)} labels; expected one per image.')
        if C and (labels >= C).any():
            raise _first_refused(source, labels, labels >= C, f'-1 to {C - 1}, since there are {C} classes')
    if targets is not None and np.ndim(targets) == 2:
        shape = whole_targets(targets, source).shape
        if shape != (count, C or shape[1]):
            raise ValueError(f'{kind} has targets of shape {shape}; expected ({count}, {C}): images, classes.')


def rows_by_label(labels: np.ndarray) -> dict[int, np.ndarray]:
    """{label: its rows, rising}, labels rising; one sort, however many labels there are."""
    labels = np.asarray(labels)
    order = labels.argsort(kind='stable')
    names, first = np.unique(labels[order], return_index=True)
    return dict(zip(names.tolist(), np.split(order, first[1:]), strict=True)) if len(labels) else {}
