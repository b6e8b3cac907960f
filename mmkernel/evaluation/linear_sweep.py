"""Hundreds of linear classifiers on the same features at once, the best of them chosen without the test set."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor

from mmkernel.evaluation.inputs import as_split
from mmkernel.evaluation.linear import SCALINGS, scaling_of

LEARNING_RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
WEIGHT_DECAYS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
Scale = Callable[[Tensor], Tensor]


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
    train_x, train_y, test_x, test_y, classes = as_split(train_x, train_y, test_x, test_y, num_classes)
    device = torch.device(device) if device is not None else train_x.device
    fit_rows, choose_rows = split_rows(train_y.cpu().numpy(), held_out, seeds[0])
    grid = list(product(lrs, weight_decays))
    settings = dict(classes=classes, epochs=epochs, batch_size=batch_size, device=device)
    total = epochs * 2
    note = (lambda offset: lambda done: progress(offset + done, total)) if progress else (lambda offset: None)

    x, y = train_x[fit_rows], train_y[fit_rows]
    scales = [scaling_of(x, name) for name in scalings]
    heads = train_heads(x, y, scales, [seeds[0]] * len(scales), grid, progress=note(0), **settings)
    found = score_heads(heads, train_x[choose_rows], train_y[choose_rows], scales)  # (S, G) each
    s, g = _best(found['top1'], found['loss'])
    (lr, decay), scaling = grid[g], scalings[s]

    scale = scaling_of(train_x, scaling)
    heads = train_heads(
        train_x, train_y, [scale] * len(seeds), seeds, [grid[g]], progress=note(epochs), **settings
    )  # fmt: skip
    final = score_heads(heads, test_x, test_y, [scale] * len(seeds))
    values = final['top1'][:, 0].tolist()
    offered = dict(lr=(lr, lrs), weight_decay=(decay, weight_decays))
    return dict(
        top1=float(np.mean(values)),
        top5=float(final['top5'].mean()),
        sd=float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
        values=values,
        chosen=dict(lr=lr, weight_decay=decay, scaling=scaling),
        held_out=float(found['top1'][s, g]),
        by_scaling={name: float(best) for name, best in zip(scalings, found['top1'].amax(1), strict=True)},
        heads=len(scalings) * len(grid),
        at_edge=[k for k, (v, all_) in offered.items() if v and len(all_) > 1 and v in (min(all_), max(all_))],
    )


def split_rows(labels: np.ndarray, held_out: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(rows to fit, rows to choose by): of each class the fraction ``held_out``, never its last image."""
    if not 0 < held_out < 1:
        raise ValueError(f'held_out={held_out}; expected a fraction of each class between 0 and 1.')
    rng, chosen = np.random.default_rng((seed, len(labels))), []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(round(held_out * len(members)), len(members) - 1)
        chosen.append(rng.permutation(members)[:count])
    chosen = np.sort(np.concatenate(chosen))
    if len(chosen) == 0:
        raise ValueError(
            f'held_out={held_out} of {len(labels)} training images in {len(np.unique(labels))} classes is none: nothing '
            'to choose by. Raise it, or use logistic_regression, which has little to choose.'
        )
    kept = np.setdiff1d(np.arange(len(labels)), chosen)
    return torch.from_numpy(kept), torch.from_numpy(chosen)


@torch.no_grad()
def train_heads(
    x: Tensor,
    y: Tensor,
    scales: Sequence[Scale],
    seeds: Sequence[int],
    grid: Sequence[tuple[float, float]],
    classes: int,
    epochs: int,
    batch_size: int,
    device: torch.device,
    momentum: float = 0.9,
    progress: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """min mean CE + decay/2 ||W||^2 by SGD for S streams x G settings: weights (S, d, G, C) and biases (S, G, C).

    Stream s sees ``scales[s]`` of the features in an order (and from a start N(0, .01^2)) that ``seeds[s]`` fixes;
    ``grid`` holds G pairs (learning rate, weight decay). A head that diverges disturbs no other.
    """
    S, G, (N, d) = len(scales), len(grid), x.shape
    x, y = near(x, device), y.to(device)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    weight = torch.stack([0.01 * torch.randn(d, 1, classes, generator=g) for g in generators])  # (S, d, 1, C)
    weight = weight.expand(S, d, G, classes).reshape(S, d, G * classes).to(device, x.dtype, copy=True)
    bias = weight.new_zeros(S, 1, G * classes)
    rate, decay = (weight.new_tensor(v).repeat_interleave(classes) for v in zip(*grid, strict=True))  # (G C)
    speed, bias_speed = torch.zeros_like(weight), torch.zeros_like(bias)
    step, steps = 0, epochs * math.ceil(N / batch_size)
    for epoch in range(epochs):
        order = torch.stack([torch.randperm(N, generator=g) for g in generators])  # (S, N)
        for rows in order.to(x.device).split(batch_size, dim=1):
            now = rate * (0.5 * (1 + math.cos(math.pi * step / steps)))
            batch = _gather(x, rows, scales, device)  # (S, B, d)
            error = torch.baddbmm(bias, batch, weight).view(*batch.shape[:2], G, classes).softmax(-1)
            error.scatter_add_(-1, *_targets(y[rows.to(device)], error))
            error = error.div_(batch.shape[1]).view(*batch.shape[:2], -1)  # dCE / dlogits, (S, B, G C)
            speed.mul_(momentum).baddbmm_(batch.mT, error).addcmul_(weight, decay)
            bias_speed.mul_(momentum).add_(error.sum(1, keepdim=True))
            weight.addcmul_(speed, -now)
            bias.addcmul_(bias_speed, -now)
            step += 1
        if progress:
            progress(epoch + 1)
    return weight.view(S, d, G, classes), bias.view(S, G, classes)


def near(x: Tensor, device: torch.device) -> Tensor:
    """``x`` on ``device`` where it fills less than half of what is free there; else it stays, and batches travel."""
    if device.type != 'cuda':
        return x
    free, _ = torch.cuda.mem_get_info(device)
    return x.to(device) if x.numel() * x.element_size() < free / 2 else x


def _gather(x: Tensor, rows: Tensor, scales: Sequence[Scale], device: torch.device) -> Tensor:
    """(S, B, d): each stream's rows, scaled. Streams that walk in one order share the reading."""
    same = bool((rows == rows[0]).all())
    parts = [x[rows[0]].to(device)] * len(scales) if same else [x[r].to(device) for r in rows]
    return torch.stack([scale(part) for scale, part in zip(scales, parts, strict=True)])


def _targets(labels: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """Index and value that take 1 off the probability of the right class: (S, B) -> (S, B, G, 1) each."""
    index = labels[:, :, None, None].expand(*error.shape[:3], 1)
    return index, torch.full_like(index, -1, dtype=error.dtype)


@torch.no_grad()
def score_heads(
    heads: tuple[Tensor, Tensor], x: Tensor, y: Tensor, scales: Sequence[Scale], chunk: int = 1024
) -> dict[str, Tensor]:
    """``dict(top1=, top5=, loss=)`` of each head, (S, G) on the CPU: percent right, mean cross-entropy (inf: diverged)."""
    weight, bias = heads
    S, d, G, C = weight.shape
    sums = {name: torch.zeros(S, G, dtype=torch.float64, device=weight.device) for name in ('top1', 'top5', 'loss')}
    for rows in torch.arange(len(x)).split(chunk):
        part, label = x[rows].to(weight.device), y[rows].to(weight.device)
        for s, scale in enumerate(scales):
            logits = (scale(part) @ weight[s].reshape(d, -1)).view(-1, G, C) + bias[s]  # (n, G, C)
            hit = logits.topk(min(5, C), dim=-1).indices == label[:, None, None]
            finite = logits.isfinite().all(-1)  # a head that has diverged is right about nothing
            sums['top1'][s] += (hit[..., 0] & finite).sum(0)
            sums['top5'][s] += (hit.any(-1) & finite).sum(0)
            loss = -logits.log_softmax(-1).gather(-1, label[:, None, None].expand(-1, G, 1))[..., 0]
            sums['loss'][s] += loss.nan_to_num(nan=math.inf).sum(0)
    percent = {name: 100 * sums[name].cpu() / len(x) for name in ('top1', 'top5')}
    return {**percent, 'loss': sums['loss'].cpu() / len(x)}


def _best(top1: Tensor, loss: Tensor) -> tuple[int, int]:
    """(s, g) of the highest accuracy, the lowest loss among equals."""
    ranked = torch.where(top1 == top1.max(), loss, torch.inf)
    if not ranked.isfinite().any():
        raise ValueError('Every head has diverged: offer smaller learning rates (lrs), or scaled features.')
    return divmod(int(ranked.argmin()), top1.shape[1])
