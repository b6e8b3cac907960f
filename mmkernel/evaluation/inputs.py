"""Features and labels as checked tensors, whatever arrays they come as; the scaling of features, and a split to choose by."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from mmkernel.checks import check_words
from mmkernel.datasets.draws import draw_per_class
from mmkernel.evaluation.labels import aligned

SCALINGS = ('none', 'l2', 'standard')


def as_tensor(x: ArrayLike | Tensor, name: str) -> Tensor:
    """``x`` as a tensor; arrays may have negative strides and any byte order. ValueError for text."""
    if not isinstance(x, np.ndarray):
        return torch.as_tensor(x)
    if x.dtype.kind not in 'biuf':
        raise ValueError(f'{name} hold {x.dtype}; expected numbers.')
    return torch.as_tensor(np.ascontiguousarray(x, x.dtype.newbyteorder('=')))


def unit_rows(x: Tensor, point: bool = False) -> Tensor:
    """x_i / ||x_i|| of (N, d) rows at any scale; rows of zeros stay, or with ``point`` are all the first axis."""
    largest = x.abs().amax(1, keepdim=True)
    power = torch.where(largest > 0, largest, 1).frexp().exponent - 1  # of 2, so that no digit changes
    u = F.normalize(x / torch.ldexp(torch.ones_like(largest), power), dim=1)
    if point:
        u[:, :1].masked_fill_(largest == 0, 1)
    return u


def as_features(x: ArrayLike | Tensor, name: str) -> Tensor:
    """(N, d) floating tensor; half precision is promoted to float32, float64 stays."""
    x = as_tensor(x, name)
    if x.ndim != 2 or len(x) == 0:
        raise ValueError(f'{name} has shape {tuple(x.shape)}; expected (images, features) with at least one image.')
    if not torch.isfinite(x.sum()) and not torch.isfinite(x).all():  # the sum is several times cheaper
        text = (
            f'{name}: {int((~torch.isfinite(x)).any(1).sum())} of {len(x)} rows hold NaN or infinity. The encoder has '
        )
        raise ValueError(f'{text}diverged, or the checkpoint is damaged: look at the training loss.')
    return x if x.dtype == torch.float64 else x.float()


def as_labels(y: ArrayLike | Tensor, length: int, name: str) -> Tensor:
    """(N,) int64 tensor of class numbers >= 0; ValueError naming the first row with anything else."""
    given = as_tensor(y, name)
    if given.shape != (length,):
        raise ValueError(f'{name} has shape {tuple(given.shape)}; expected ({length},), one label per row of features.')
    if given.dtype == torch.bool or given.is_complex():
        raise ValueError(f'{name} hold {given.dtype}; expected whole numbers, one class per image.')
    y = given.long()
    wrong = (y.to(given.dtype) != given) | (y < -1)  # NaN equals nothing
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f'{name} hold fractions or NaN, or numbers below -1, in {int(wrong.sum())} of {length} rows, first in row {row}: '
            f'{given[row].item()}; expected whole numbers, one class per image.'
        )
    if (y < 0).any():
        raise ValueError(
            f'{name}: {int((y < 0).sum())} of {length} images have no label (-1). Look at evaluation.train and evaluation.test '
            'of the config. Without labels these still work: diagnosis, monitors, choice of a checkpoint, transformations.'
        )
    return y


def as_targets(y: ArrayLike | Tensor, length: int, name: str) -> Tensor:
    """(N, C) int8 tensor of 1 (there), 0 (not there) and -1 (does not count), of images that show several classes."""
    y = as_tensor(y, name)
    if y.ndim != 2 or len(y) != length or not torch.isin(y, torch.tensor([-1, 0, 1])).all():
        raise ValueError(
            f'{name} have shape {tuple(y.shape)}; expected ({length}, classes) of 1 (there), 0 (not there) and -1 (does not '
            "count), as the `targets` of a multi-label source such as dict(type='VOC2007', ...)."
        )
    return y.to(torch.int8)


def as_pair(
    first: ArrayLike, second: ArrayLike, names: tuple[str, str] = ('train features', 'test features')
) -> tuple[Tensor, Tensor]:
    """Two sets of features of one width and one precision."""
    first, second = as_features(first, names[0]), as_features(second, names[1])
    if first.shape[1] != second.shape[1]:
        widths = f'{names[0]} have width {first.shape[1]}, {names[1]} {second.shape[1]}'
        raise ValueError(f'{widths}; both must come from the same encoder and stage.')
    return (first, second) if first.dtype == second.dtype else (first.double(), second.double())


def as_split(
    train_x: ArrayLike,
    train_y: ArrayLike,
    test_x: ArrayLike,
    test_y: ArrayLike,
    num_classes: int | None = None,
    targets: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """The four checked tensors and the number of classes (largest label + 1 where it is not given).

    ``targets``: y are (N, C) targets in place of (N,) labels. Both are matched by the names of their classes where they
    bring them, see :func:`aligned`.
    """
    train_x, test_x = as_pair(train_x, test_x)
    train_y, test_y = aligned(train_y, test_y)
    read, kind = (as_targets, 'targets') if targets else (as_labels, 'labels')
    train_y, test_y = read(train_y, len(train_x), f'train {kind}'), read(test_y, len(test_x), f'test {kind}')
    test_y = test_y.to(train_y.device)
    if targets:
        if train_y.shape[1] != test_y.shape[1]:
            raise ValueError(f'train targets have {train_y.shape[1]} classes, those of the test {test_y.shape[1]}.')
        return train_x, train_y, test_x, test_y, train_y.shape[1]
    found = int(max(train_y.max(), test_y.max())) + 1
    if num_classes is not None and num_classes < found:
        raise ValueError(f'num_classes={num_classes}, but label {found - 1} occurs; expected at least {found}.')
    _warn_of_classes(train_y, test_y)
    return train_x, train_y, test_x, test_y, num_classes or found


def _warn_of_classes(train_y: Tensor, test_y: Tensor) -> None:
    """Warn of training images of one class alone, and of test images of a class without a training image."""
    known = train_y.unique()
    absent = test_y[~torch.isin(test_y, known)]
    if len(known) == 1 and len(train_y) > 1:
        text = f'all {len(train_y)} training images have label {int(known)}: an accuracy says nothing then.'
        warnings.warn(f'{text} Look at the labels of evaluation.train.', stacklevel=4)
    if len(absent):
        classes = ', '.join(map(str, absent.unique()[:8].tolist()))
        text = (
            f'{len(absent)} of {len(test_y)} test images belong to classes without a training image ({classes}): they '
        )
        warnings.warn(
            f'{text}count as wrong. Do evaluation.train and evaluation.test number the classes alike?', stacklevel=4
        )


def scaling_of(train_x: Tensor, scaling: str) -> Callable[[Tensor], Tensor]:
    """The map x -> scaled x of ``scale_features``, for features that come in batches."""
    check_words(scaling=(scaling, SCALINGS))
    if scaling != 'standard':
        return unit_rows if scaling == 'l2' else lambda x: x
    mean, std = train_x.mean(0), train_x.std(0, correction=0)
    odd = ~((std > 1e-15) & (std < 1e15))  # their squares leave the range of float32
    if odd.any():
        columns = train_x[:, odd].double()
        mean[odd], std[odd] = columns.mean(0).to(mean), columns.std(0, correction=0).to(std)
    factor = torch.where(std > 1e-6 * mean.abs(), 1 / std, 0)
    return lambda x: (x - mean.to(x.device)) * factor.to(x.device)


def scale_features(train_x: Tensor, test_x: Tensor, scaling: str) -> tuple[Tensor, Tensor]:
    """'none': as they are; 'l2': x / ||x||; 'standard': (x - mean) / std per column, statistics of ``train_x``.

    A column that is constant in training becomes zero. Statistics use no label: take those of the whole training set.
    """
    train_x, test_x = as_pair(train_x, test_x)
    scale = scaling_of(train_x, scaling)
    return scale(train_x), scale(test_x)


def absent_classes(train_y: Tensor, classes: int) -> Tensor:
    """(classes,) booleans: those without a training image, which no classifier may predict."""
    return train_y.bincount(minlength=classes) == 0


def split_rows(labels: np.ndarray, held_out: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(rows to fit, rows to choose by): of each class the fraction ``held_out``, never its last image."""
    if not 0 < held_out < 1:
        raise ValueError(f'held_out={held_out}; expected a fraction of each class between 0 and 1.')
    rng = np.random.default_rng((seed, len(labels)))
    chosen = draw_per_class(
        labels, lambda label, n: min(round(held_out * n), n - 1), lambda label, members, k: rng.permutation(members)[:k]
    )
    if len(chosen) == 0:
        given = f'held_out={held_out} of {len(labels)} training images in {len(np.unique(labels))} classes'
        raise ValueError(f'{given} is none: nothing to choose by. Raise it, or use logistic_regression.')
    kept = np.setdiff1d(np.arange(len(labels)), chosen)
    return torch.from_numpy(kept), torch.from_numpy(np.sort(chosen))
