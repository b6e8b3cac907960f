"""Linear classifiers on cached features."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkernel.checks import check_numbers
from mmkernel.evaluation.inputs import as_pair, as_split, unit_rows
from mmkernel.evaluation.judges import places

SCALINGS = ('none', 'l2', 'standard')


def scaling_of(train_x: Tensor, scaling: str) -> Callable[[Tensor], Tensor]:
    """The map that ``scale_features`` applies, for features that come in batches."""
    if scaling == 'none':
        return lambda x: x
    if scaling == 'l2':
        return unit_rows
    if scaling == 'standard':
        mean, std = _column_moments(train_x)
        factor = torch.where(std > 1e-6 * mean.abs(), 1 / std, 0)
        return lambda x: (x - mean.to(x.device)) * factor.to(x.device)
    raise ValueError(f"scaling='{scaling}'; expected one of {', '.join(SCALINGS)}.")


def _column_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column; in double where squares leave float32."""
    mean, std = x.mean(0), x.std(0, correction=0)
    odd = ~((std > 1e-15) & (std < 1e15))
    if odd.any():
        columns = x[:, odd].double()
        mean[odd], std[odd] = columns.mean(0).to(x.dtype), columns.std(0, correction=0).to(x.dtype)
    return mean, std


def scale_features(train_x: Tensor, test_x: Tensor, scaling: str) -> tuple[Tensor, Tensor]:
    """'none': as they are; 'l2': x / ||x||; 'standard': (x - mean) / std per column, statistics of ``train_x``.

    Statistics use no label, so where labels are few they may (and should) come from the whole training set.
    A column that never changes in training is set to zero.
    """
    train_x, test_x = as_pair(train_x, test_x)
    scale = scaling_of(train_x, scaling)
    return scale(train_x), scale(test_x)


def linear_probe(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    epochs: int = 100,
    batch_size: int = 256,
    lr: float = 0.4,
    momentum: float = 0.9,
    weight_decay: float = 1e-6,
    scaling: str = 'none',
    num_classes: int | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Softmax regression by SGD, cosine schedule stepped per epoch, no augmentation: percent right after the last epoch.

    The small-set protocol of Zheng et al., ICLR 2023 (the defaults); the learning rate is absolute, weights start at
    N(0, 0.01^2), the last short batch is used. ``best_top1`` is the best epoch *on the test set*, which is what many
    papers print; it is optimistic. The result depends on ``seed`` alone (initial weights and order of images).
    """
    check_numbers(epochs=epochs, batch_size=batch_size, whole=True)
    check_numbers(lr=lr)
    check_numbers(weight_decay=weight_decay, zero=True)
    train_x, train_y, test_x, test_y, classes = as_split(train_x, train_y, test_x, test_y, num_classes)
    train_x, test_x = scale_features(train_x, test_x, scaling)
    device = torch.device(device) if device is not None else train_x.device
    generator = torch.Generator().manual_seed(seed)
    layer = torch.nn.utils.skip_init(torch.nn.Linear, train_x.shape[1], classes, dtype=train_x.dtype)
    with torch.no_grad():
        layer.weight.normal_(0, 0.01, generator=generator)
        layer.bias.zero_()
    layer.to(device)
    test_x, test_y, absent = test_x.to(device), test_y.to(device), absent_classes(train_y, classes).to(device)
    optimizer = torch.optim.SGD(layer.parameters(), lr, momentum, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    best = 0.0
    for epoch in range(epochs):
        for rows in torch.randperm(len(train_x), generator=generator).to(train_x.device).split(batch_size):
            loss = F.cross_entropy(layer(train_x[rows].to(device)), train_y[rows].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        with torch.no_grad():
            result = _accuracy(layer(test_x).masked_fill(absent, -torch.inf), test_y)
        best = max(best, result['top1'])
        if progress:
            progress(epoch + 1, epochs)
    return {**result, 'best_top1': best}


def absent_classes(train_y: Tensor, classes: int) -> Tensor:
    """(classes,) booleans: those without a training image, which are predicted by nobody."""
    return train_y.bincount(minlength=classes) == 0


def logistic_regression(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    strength: float = 100.0,
    scaling: str = 'l2',
    max_iter: int = 3000,
    num_classes: int | None = None,
) -> dict[str, float]:
    """min_{W, b} sum_i CE(W x_i + b, y_i) + ||W||^2 / (2 strength) by L-BFGS: a convex problem, hence no seed.

    ``strength`` is scikit-learn's C. Classes that have no training image are never predicted. The defaults suit
    l2-normalised features with few labels as well as with all; raw pixels and random features gain as much from them
    as trained ones.
    """
    from sklearn.linear_model import LogisticRegression  # a second to import: only who probes pays

    check_numbers(strength=strength)
    train_x, train_y, test_x, test_y, classes = as_split(train_x, train_y, test_x, test_y, num_classes)
    train_x, test_x = scale_features(train_x, test_x, scaling)
    if len(train_y.unique()) < 2:
        raise ValueError(
            f'all {len(train_y)} training images have label {int(train_y[0])}; expected at least 2 classes.'
        )
    # float64, centred (b takes that up) and a tight tolerance: an early stop moves the accuracy by a point where the
    # features of all images are alike.
    centre = train_x.double().mean(0)
    fit = LogisticRegression(C=strength, max_iter=max_iter, tol=1e-6)
    fit.fit((train_x - centre).cpu().numpy(), train_y.cpu().numpy())
    margin = torch.as_tensor(fit.decision_function((test_x - centre).cpu().numpy()))
    if margin.ndim == 1:  # two classes: one column, the second class's
        margin = torch.stack([-margin, margin], dim=1)
    logits = margin.new_full((len(test_x), classes), -torch.inf)
    logits[:, torch.as_tensor(fit.classes_)] = margin
    return _accuracy(logits, test_y.cpu())


def _accuracy(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Percent of rows whose label is the first, and among the first five; see :func:`places`."""
    place = places(logits, labels)
    return {f'top{k}': 100 * int((place < k).sum()) / len(labels) for k in (1, 5)}
