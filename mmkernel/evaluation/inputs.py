"""One door for features and labels: arrays or tensors in, checked tensors out."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor


def as_tensor(x: ArrayLike | Tensor, name: str) -> Tensor:
    """``x`` as a tensor, arrays that walk backwards or hold foreign bytes included; ValueError for words."""
    if not isinstance(x, np.ndarray):
        return torch.as_tensor(x)
    if x.dtype.kind not in 'biuf':
        raise ValueError(f'{name} hold {x.dtype}; expected numbers.')
    return torch.as_tensor(np.ascontiguousarray(x, x.dtype.newbyteorder('=')))


def row_norms(x: Tensor) -> Tensor:
    """||x_i|| of (N, d) rows, (N,); also where the squares leave float32, above 1e19 and below 1e-19."""
    norms = x.norm(dim=1)
    odd = ~((norms > 1e-12) & (norms < 1e18))  # zero, NaN and infinity too
    if odd.any():
        rows = x[odd].double()
        largest = rows.abs().amax(1, keepdim=True)
        rows = rows / torch.where(largest > 0, largest, 1)
        norms[odd] = (largest[:, 0] * rows.norm(dim=1)).to(x.dtype)
    return norms


def unit_rows(x: Tensor) -> Tensor:
    """x_i / ||x_i|| of (N, d) rows at any scale, which ``F.normalize`` gives between 1e-12 and 1e19 only; zeros stay."""
    norms = row_norms(x)[:, None]
    return x / torch.where(norms > 0, norms, 1)


def as_features(x: ArrayLike | Tensor, name: str) -> Tensor:
    """(N, d) floating tensor; half precision is promoted to float32, float64 stays."""
    x = as_tensor(x, name)
    if x.ndim != 2 or len(x) == 0:
        raise ValueError(f'{name} has shape {tuple(x.shape)}; expected (images, features) with at least one image.')
    if not torch.isfinite(x.sum()) and not torch.isfinite(x).all():  # the sum is several times cheaper
        bad = int((~torch.isfinite(x)).any(1).sum())
        raise ValueError(
            f'{name}: {bad} of {len(x)} rows hold NaN or infinity. The encoder has diverged, '
            'or the checkpoint is damaged; look at the training loss.'
        )
    return x if x.dtype == torch.float64 else x.float()


def as_labels(y: ArrayLike | Tensor, length: int, name: str) -> Tensor:
    """(N,) int64 tensor of class numbers >= 0."""
    given = as_tensor(y, name)
    y = given.long()
    if given.is_floating_point() and not torch.equal(y.to(given.dtype), given):
        raise ValueError(f'{name} hold fractions or NaN; expected whole numbers, one class per image.')
    if y.shape != (length,):
        raise ValueError(f'{name} has shape {tuple(y.shape)}; expected ({length},), one label per row of features.')
    if (y < 0).any():
        raise ValueError(
            f'{name}: {int((y < 0).sum())} of {length} images have no label (-1). '
            'This benchmark needs labelled sources: look at evaluation.train and evaluation.test of the config. '
            'Without labels these still work: the diagnosis of a checkpoint, spectrum and effective rank, the monitors '
            'of a run, and the choice of a checkpoint by them.'
        )
    return y


def as_pair(train_x: ArrayLike, test_x: ArrayLike) -> tuple[Tensor, Tensor]:
    """Features for training and test, checked, of one width and one precision."""
    train_x, test_x = as_features(train_x, 'train features'), as_features(test_x, 'test features')
    if train_x.shape[1] != test_x.shape[1]:
        raise ValueError(
            f'train features have width {train_x.shape[1]}, test features {test_x.shape[1]}; '
            'both must come from the same encoder and stage.'
        )
    return (train_x, test_x) if train_x.dtype == test_x.dtype else (train_x.double(), test_x.double())


def as_split(
    train_x: ArrayLike, train_y: ArrayLike, test_x: ArrayLike, test_y: ArrayLike, num_classes: int | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """The four checked tensors and the number of classes (largest label + 1 where it is not given)."""
    train_x, test_x = as_pair(train_x, test_x)
    train_y, test_y = as_labels(train_y, len(train_x), 'train labels'), as_labels(test_y, len(test_x), 'test labels')
    found = int(max(train_y.max(), test_y.max())) + 1
    if num_classes is not None and num_classes < found:
        raise ValueError(f'num_classes={num_classes}, but label {found - 1} occurs; expected at least {found}.')
    return train_x, train_y, test_x, test_y.to(train_y.device), num_classes or found
