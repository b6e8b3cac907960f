"""One door for features and labels: arrays or tensors in, checked tensors out."""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor


def as_features(x: ArrayLike | Tensor, name: str) -> Tensor:
    """(N, d) floating tensor; half precision is promoted to float32, float64 stays."""
    x = torch.as_tensor(x)
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
    y = torch.as_tensor(y).long()
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


def as_split(
    train_x: ArrayLike, train_y: ArrayLike, test_x: ArrayLike, test_y: ArrayLike, num_classes: int | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """The four checked tensors and the number of classes (largest label + 1 where it is not given)."""
    train_x, test_x = as_features(train_x, 'train features'), as_features(test_x, 'test features')
    if train_x.shape[1] != test_x.shape[1]:
        raise ValueError(
            f'train features have width {train_x.shape[1]}, test features {test_x.shape[1]}; '
            'both must come from the same encoder and stage.'
        )
    train_y, test_y = as_labels(train_y, len(train_x), 'train labels'), as_labels(test_y, len(test_x), 'test labels')
    found = int(max(train_y.max(), test_y.max())) + 1
    if num_classes is not None and num_classes < found:
        raise ValueError(f'num_classes={num_classes}, but label {found - 1} occurs; expected at least {found}.')
    return train_x, train_y, test_x, test_y.to(train_y.device), num_classes or found
