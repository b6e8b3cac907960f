"""Labels and targets of a source: whole numbers, or words that become numbers, or an error that names the record."""

from numbers import Integral
from typing import Any

import numpy as np


def numbered_labels(labels: Any, source: Any) -> tuple[np.ndarray, list[str] | None]:
    """((N,) int64, the class names that labels in words were numbered by, or None for labels that are numbers).

    Words are numbered by their places in ``source.classes``; where that is empty, by sorted order. None among words: -1.
    ValueError naming the first record with a word that is not among them, or with anything else between words.
    """
    listed = _array(labels, source)
    in_words = listed.dtype.kind == 'U' or listed.dtype.kind == 'O' and any(isinstance(value, str) for value in listed)
    if not in_words or listed.ndim != 1:
        return whole_labels(listed, source), None
    # of a list, its own values: numpy makes 'cat', '1' of ['cat', 1]
    given = listed if isinstance(labels, np.ndarray) else np.array([*labels], object)
    there = np.array([value is not None for value in given])
    odd = np.array([value is not None and not (isinstance(value, str) and value) for value in given])
    _refuse(source, given, odd, 'a word as the others, or None where there is none')
    words, places = np.unique(given[there].astype(str), return_inverse=True)
    classes = [str(name) for name in source.classes] or words.tolist()
    place = {name: k for k, name in enumerate(classes)}
    if len(place) < len(classes):
        raise ValueError(
            f'{type(source).__name__}: a name stands twice in classes, so labels in words have two meanings.'
        )
    numbers = np.full(len(given), -1)
    numbers[there] = np.array([place.get(word, -2) for word in words.tolist()], np.int64)[places]
    known = ', '.join(classes[:20]) + (', ...' if len(classes) > 20 else '')
    _refuse(source, given, numbers == -2, f'one of the {len(classes)} classes ({known})')
    return numbers, classes


def whole_labels(labels: Any, source: Any) -> np.ndarray:
    """(N,) int64 of whole numbers from -1 on; ValueError naming the first record with anything else."""
    labels = _array(labels, source)
    if labels.ndim != 1:
        first = labels[0].tolist() if labels.ndim > 1 and len(labels) else None
        named = f'That of {_name(source, 0)} is {first}. ' if first is not None else ''
        raise ValueError(
            f'{type(source).__name__}: labels have shape {labels.shape}; expected (N,), one per image. {named}{_fix(first)}'
        )
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
    if (by := getattr(source, '_numbered_by', None)) and by != [str(name) for name in source.classes]:
        raise ValueError(
            f'{type(source).__name__}: labels in words were numbered by {by[:20]}, but classes was set to '
            f'{list(source.classes)[:20]} afterwards. Set classes first, or leave it out.'
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
    value = values[i].tolist() if values.dtype.kind != 'O' or values.ndim > 1 else values[i]
    raise ValueError(
        f'{type(source).__name__}: the {"label" if values.ndim == 1 else "targets"} of {_name(source, i)} (record {i})'
        + (f', and those of {more} more' if more else '')
        + f': {value!r}; expected {expected}. {_fix(value)}'
    )


def _name(source: Any, i: int) -> str:
    try:
        return source.name(i)
    except (AttributeError, NotImplementedError, LookupError, TypeError):  # a source under construction
        return f'record {i}'


def _array(labels: Any, source: Any) -> np.ndarray:
    try:
        return np.asarray(labels)
    except ValueError as error:  # lists of unequal lengths in place of numbers
        odd = np.array([isinstance(value, (list, tuple, np.ndarray)) for value in labels])
        _refuse(source, np.array(labels, object), odd, 'one class of each image')
        raise ValueError(f'{type(source).__name__}: labels are no array ({error}); expected (N,).') from error


def _fix(value: Any) -> str:
    """What to do about a label of this kind."""
    row = np.array(value) if isinstance(value, (list, tuple, np.ndarray)) else None
    if (
        row is not None
        and row.size
        and row.dtype.kind in 'biuf'
        and np.isclose(row.sum(), 1)
        and (row == row.max()).sum() == 1
    ):
        return 'One-hot rows, or parts of classes: labels.argmax(1) gives the number of the likeliest.'
    if isinstance(value, (bool, np.bool_)):
        return "For truth values: labels.astype(int), and classes, e.g. ['no', 'yes']."
    if isinstance(value, float) and np.isfinite(value):
        return 'A part of a class is no label: give the number of the likeliest, or -1.'
    if isinstance(value, str):
        return 'Correct the word, or add it to `classes`; without `classes` they are the sorted words.'
    return (
        'Number the classes 0, 1, 2, ... in the order of `classes`, -1 for none; several classes of one image go into '
        'targets (N, C).'
    )
