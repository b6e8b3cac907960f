"""Linear transfer of frozen features to other data sets, and prediction of image transformations from them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor, nn

from mmkernel.checks import check_numbers, check_words
from mmkernel.datasets.draws import draw_per_class
from mmkernel.evaluation.features import feature_sets
from mmkernel.evaluation.inputs import absent_classes, as_split, scale_features
from mmkernel.evaluation.logistic import logistic_path
from mmkernel.evaluation.metrics import label_ranks, mean_average_precision, mean_per_class, percent, top_k

PENALTIES = tuple(np.logspace(-6, 5, 45).tolist())
_SCORES: dict[str, Callable[[Tensor, Tensor], float]] = dict(  # (logits, labels or targets) -> percent
    top1=lambda z, y: top_k(z, y, 1)['top1'],
    mean_per_class=lambda z, y: mean_per_class(torch.where(label_ranks(z, y) < 1, y, -1), y),
    map11=lambda z, y: mean_average_precision(y, z, '11'),
)


class TransferSet(NamedTuple):
    """A data set of the suite."""

    source: str  # its name in DATASETS
    train: str  # its training split, validation images included
    metric: str = 'top1'  # of the published figures


TRANSFER_SETS = {
    'food101': TransferSet('Food101', 'train'),
    'cifar10': TransferSet('CIFAR10', 'train'),
    'cifar100': TransferSet('CIFAR100', 'train'),
    'birdsnap': TransferSet('Birdsnap', 'train'),
    'sun397': TransferSet('SUN397', 'train'),
    'cars': TransferSet('StanfordCars', 'train'),
    'aircraft': TransferSet('FGVCAircraft', 'trainval', 'mean_per_class'),
    'voc2007': TransferSet('VOC2007', 'trainval', 'map11'),
    'dtd': TransferSet('DTD', 'trainval'),
    'pets': TransferSet('OxfordPets', 'trainval', 'mean_per_class'),
    'caltech101': TransferSet('Caltech101', 'train', 'mean_per_class'),
    'flowers102': TransferSet('Flowers102', 'trainval', 'mean_per_class'),
}
"""The twelve sets of Kornblith et al., CVPR 2019, and Chen et al., ICML 2020, appendix B.8, by name and folder; the test
split of each is called 'test'."""


def transfer(
    train_x: ArrayLike,
    train_y: ArrayLike,
    test_x: ArrayLike,
    test_y: ArrayLike,
    metric: str = 'top1',
    validation: ArrayLike | None = None,
    penalties: Sequence[float] = PENALTIES,
    scaling: str = 'none',
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """min_W sum_i CE(W x_i, y_i) + l2 ||W||^2 / 2, l2 chosen on the validation images, refitted with them: percent on the test.

    Kornblith et al., CVPR 2019; Chen et al., ICML 2020, B.8: 45 values of l2 between 1e-6 and 1e5, evenly in the logarithm,
    features as they are. (The papers do not say whether their loss is a sum or a mean; ours is the sum, scikit-learn's.)
    metric: 'top1', 'mean_per_class', or 'map11' for (N, C) targets 1, 0, -1 (left out): 11-point mAP, one regression a class.
    validation: (N,) booleans; None: a fifth of each class, by ``seed``. Of equal scores the larger l2 wins.
    Returns ``dict(score=, metric=, l2=, validation=)``. Classes without a training image are never predicted right.
    """
    check_words(metric=(metric, _SCORES))
    check_numbers(penalties=penalties, zero=True)
    score_of = _SCORES[metric]
    train_x, train_y, test_x, test_y, classes = as_split(train_x, train_y, test_x, test_y, targets=metric == 'map11')
    train_x, test_x = scale_features(train_x, test_x, scaling)
    held_out = _held_out(train_y, seed) if validation is None else torch.as_tensor(validation, dtype=torch.bool)
    if held_out.shape != (len(train_x),) or held_out.all() or not held_out.any():
        given = f'validation marks {int(held_out.sum())} of {tuple(held_out.shape)} images'
        raise ValueError(f'{given}; expected some but not all of {len(train_x)}, as booleans.')
    if metric == 'map11' and not (train_y[held_out] == 1).any():
        raise ValueError('no validation image shows any class: nothing to choose l2 by. Name other validation images.')
    device = torch.device(device) if device is not None else train_x.device
    falling, scores, note = sorted(penalties, reverse=True), [], progress or (lambda done, total: None)
    for predict in logistic_path(train_x[~held_out].to(device), train_y[~held_out].to(device), falling, classes):
        scores.append(score_of(predict(train_x[held_out]).cpu(), train_y[held_out]))
        note(len(scores), len(falling) + 1)
    best = int(np.argmax(scores))
    (predict,) = logistic_path(train_x.to(device), train_y.to(device), falling[best : best + 1], classes)
    score = score_of(predict(test_x).cpu(), test_y)
    note(len(falling) + 1, len(falling) + 1)
    return dict(score=score, metric=metric, l2=falling[best], validation=scores[best])


def _held_out(y: Tensor, seed: int, share: float = 0.2) -> Tensor:
    """A fifth of each class (at least one image of those with two), or of all images where they have several classes."""
    draw = np.random.default_rng(seed).random(len(y))
    rows = draw_per_class(
        y.cpu().numpy() if y.ndim == 1 else np.zeros(len(y)),
        lambda label, n: max(round(share * n), 1 if n > 1 else 0),
        lambda label, members, k: members[draw[members].argsort(kind='stable')[:k]],
    )
    return torch.zeros(len(y), dtype=torch.bool).index_fill_(0, torch.from_numpy(rows), True)


def predict_transformations(
    cfg: Any,
    encoders: Mapping[str, nn.Module],
    tasks: Sequence[str] = ('grey', 'rotation', 'noise', 'sobel'),
    noise_sigma: float = 25.0,
    seed: int = 0,
    cache: str | Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    **probe: Any,
) -> list[dict]:
    """One row ``dict(name=, scores={task: {'h': .., 'g(h)': ..}})`` per encoder, each entry an answer of ``mlp_probe``.

    Chen et al., ICML 2020, table 3, on the evaluation part of ``cfg``: its images after its transform, transformed by
    label (see ``TransformedSource``); features of the backbone (h), and of backbone and neck (g(h)). ``probe`` goes to
    ``mlp_probe``. 'grey' is left out where images have one channel.
    """
    rows = {name: dict(name=name, scores={}) for name in encoders}
    for task in tasks:
        if task == 'grey' and len(cfg['data_preprocessor']['mean']) != 3:
            continue
        part = cfg['evaluation']
        wrap = dict(type='TransformedSource', task=task, transform=part.get('transform'), seed=seed)
        wrapped = {split: dict(wrap, noise_sigma=noise_sigma, source=part[split]) for split in ('train', 'test')}
        part = {**part, 'transform': None, **wrapped}
        for stage, short in dict(backbone='h', neck='g(h)').items():
            say = progress and (lambda name, *at, what=f'{task}, %s {short}': progress(what % name, *at))
            for name, *data in feature_sets(dict(evaluation=part), encoders, False, stage, say, cache):
                rows[name]['scores'].setdefault(task, {})[short] = mlp_probe(*data, seed=seed, **probe)
    return list(rows.values())


def mlp_probe(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    hidden: int = 2048,
    epochs: int = 30,
    batch_size: int = 256,
    lr: float = 1e-3,
    weight_decay: float = 1e-4,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> dict[str, float]:
    """y ~ W_2 relu(W_1 x), trained by AdamW with a cosine schedule: percent of test images right after the last epoch.

    Chen et al., ICML 2020, table 3: one hidden layer on frozen features, standardised. The paper gives neither its width nor
    the optimizer: these are ours.

    Returns ``dict(top1=, majority=)``; ``majority``: the score of always answering the most frequent training label.
    """
    check_numbers(hidden=hidden, epochs=epochs, batch_size=batch_size, whole=True)
    train_x, train_y, test_x, test_y, classes = as_split(train_x, train_y, test_x, test_y)
    train_x, test_x = scale_features(train_x, test_x, 'standard')
    device = torch.device(device) if device is not None else train_x.device
    order = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        net = nn.Sequential(nn.Linear(train_x.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, classes))
    net.to(device, train_x.dtype)
    optimizer = torch.optim.AdamW(net.parameters(), lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(train_x), generator=order).split(batch_size):
            loss = F.cross_entropy(net(train_x[rows].to(device)), train_y[rows].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    with torch.no_grad():
        logits = torch.cat([net(x.to(device)).cpu() for x in test_x.split(4096)])
    logits.masked_fill_(absent_classes(train_y, classes).cpu(), -torch.inf)
    test_y, commonest = test_y.cpu(), train_y.bincount().argmax().cpu()
    return dict(**top_k(logits, test_y, 1), majority=percent(test_y == commonest))
