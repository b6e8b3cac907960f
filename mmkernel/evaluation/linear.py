"""Softmax regression on cached features by SGD: one recipe, or the best of hundreds, chosen without the test set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor

from mmkernel.checks import check_distinct, check_numbers
from mmkernel.datasets.draws import draw_per_class
from mmkernel.evaluation.inputs import SCALINGS, absent_classes, as_split, scaling_of
from mmkernel.evaluation.linear_heads import Heads, rows_first, score_heads, train_heads
from mmkernel.evaluation.metrics import mean_and_sd

LEARNING_RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
WEIGHT_DECAYS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


def linear_sweep(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    lrs: Sequence[float] = LEARNING_RATES,
    weight_decays: Sequence[float] = WEIGHT_DECAYS,
    scalings: Sequence[str] = SCALINGS,
    epochs: int = 100,
    batch_size: int = 256,
    held_out: float = 0.1,
    seeds: Sequence[int] = (0, 1, 2),
    num_classes: int | None = None,
    device: str | torch.device | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Softmax regression by SGD for every (rate, decay, scaling); the winner on held-out training images, then refitted.

    All heads are trained in one pass over 1 - ``held_out`` of each class (momentum .9, cosine to 0 per step), one batched
    matrix product per step. The winner has the most held-out images right (then the lower loss); it is trained again on
    the whole training set, once per seed, and only those heads meet the test set. Decay spares the bias.

    Returns ``dict(top1=, top5=, sd=, values=)`` over seeds, ``chosen``, ``held_out`` (its top-1 there), ``by_scaling``,
    ``heads``, and ``at_edge``: which of its settings are the largest or smallest offered (then offer more).
    """
    check_numbers(epochs=epochs, batch_size=batch_size, whole=True)
    check_numbers(lrs=lrs)
    check_numbers(weight_decays=weight_decays, zero=True)
    check_distinct(seeds=seeds, scalings=scalings)
    train_x, train_y, test_x, test_y, classes = as_split(train_x, train_y, test_x, test_y, num_classes)
    device = torch.device(device) if device is not None else train_x.device
    fit_rows, choose_rows = split_rows(train_y.cpu().numpy(), held_out, seeds[0])
    grid = list(product(lrs, weight_decays))
    settings = dict(classes=classes, epochs=epochs, batch_size=batch_size, device=device)

    def note(before: int) -> Callable[[int, Heads], None]:
        return lambda done, heads: progress(before + done, 2 * epochs) if progress else None

    # statistics need no label: held-out images may give theirs
    scales = [scaling_of(train_x, name) for name in scalings]
    first = [seeds[0]] * len(scales)
    heads = train_heads(train_x, train_y, scales, first, grid, rows=fit_rows, after_epoch=note(0), **settings)
    found = score_heads(heads, train_x[choose_rows], train_y[choose_rows], scales)  # (S, G) each
    s, g = _best(found['top1'], found['loss'])
    (lr, decay), scale = grid[g], [scales[s]] * len(seeds)
    heads = train_heads(train_x, train_y, scale, seeds, [grid[g]], after_epoch=note(epochs), **settings)
    final = score_heads(heads, test_x, test_y, scale, absent=absent_classes(train_y, classes))
    offered = dict(lr=(lr, lrs), weight_decay=(decay, weight_decays))
    summary = mean_and_sd(final['top1'][:, 0].tolist())
    return dict(
        top1=summary['mean'],
        top5=float(final['top5'].mean()),
        sd=summary['sd'],
        values=summary['values'],
        chosen=dict(lr=lr, weight_decay=decay, scaling=scalings[s]),
        held_out=float(found['top1'][s, g]),
        by_scaling={name: float(best) for name, best in zip(scalings, found['top1'].amax(1), strict=True)},
        heads=len(scalings) * len(grid),
        at_edge=[k for k, (v, all_) in offered.items() if v and len(all_) > 1 and v in (min(all_), max(all_))],
    )


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

    The small-set protocol of Zheng et al., ICLR 2023 (the defaults): one head whose bias decays too, the learning rate
    absolute, the last short batch used, weights from N(0, 0.01^2). ``best_top1`` is the best epoch *on the test set*, which
    is what many papers print; it is optimistic. The result depends on ``seed`` alone (initial weights, order of images).
    """
    check_numbers(epochs=epochs, batch_size=batch_size, whole=True)
    check_numbers(lr=lr)
    check_numbers(weight_decay=weight_decay, zero=True)
    train_x, train_y, test_x, test_y, classes = as_split(train_x, train_y, test_x, test_y, num_classes)
    device = torch.device(device) if device is not None else train_x.device
    scale, absent, scores = [scaling_of(train_x, scaling)], absent_classes(train_y, classes), []

    def score(done: int, heads: Heads) -> None:
        scores.append({name: float(value) for name, value in score_heads(heads, test_x, test_y, scale, absent).items()})
        if progress:
            progress(done, epochs)

    train_heads(
        train_x, train_y, scale, [seed], [(lr, weight_decay)], classes, epochs, batch_size, device, momentum,
        after_epoch=score, start=rows_first, rate_per_epoch=True, decay_bias=True,
    )  # fmt: skip
    return dict(top1=scores[-1]['top1'], top5=scores[-1]['top5'], best_top1=max(each['top1'] for each in scores))


def split_rows(labels: np.ndarray, held_out: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(rows to fit, rows to choose by): of each class the fraction ``held_out``, never its last image."""
    if not 0 < held_out < 1:
        raise ValueError(f'held_out={held_out}; expected a fraction of each class between 0 and 1.')
    rng = np.random.default_rng((seed, len(labels)))
    chosen = draw_per_class(
        labels, lambda label, n: min(round(held_out * n), n - 1), lambda label, members, k: rng.permutation(members)[:k]
    )
    if len(chosen) == 0:
        raise ValueError(
            f'held_out={held_out} of {len(labels)} training images in {len(np.unique(labels))} classes is none: nothing '
            'to choose by. Raise it, or use logistic_regression, which has little to choose.'
        )
    kept = np.setdiff1d(np.arange(len(labels)), chosen)
    return torch.from_numpy(kept), torch.from_numpy(np.sort(chosen))


def _best(top1: Tensor, loss: Tensor) -> tuple[int, int]:
    """(s, g) of the highest accuracy, the lowest loss among equals."""
    ranked = torch.where(top1 == top1.max(), loss, torch.inf)
    if not ranked.isfinite().any():
        raise ValueError('Every head has diverged: offer smaller learning rates (lrs), or scaled features.')
    return divmod(int(ranked.argmin()), top1.shape[1])
