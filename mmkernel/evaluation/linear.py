"""Softmax regression on cached features by SGD: one recipe, or the best of hundreds, chosen without the test set."""

import math
from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor

from mmkernel.checks import check_distinct, check_numbers
from mmkernel.evaluation.inputs import SCALINGS, absent_classes, as_split, scaling_of, split_rows
from mmkernel.evaluation.metrics import label_ranks, mean_and_sd

Scale = Callable[[Tensor], Tensor]
Heads = tuple[Tensor, Tensor]  # weights (S, d, G, C) and biases (S, G, C)
LEARNING_RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
WEIGHT_DECAYS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


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
    rows: Tensor | None = None,
    after_epoch: Callable[[int, Heads], None] | None = None,
    as_layer: bool = False,
) -> Heads:
    """min mean CE + decay/2 ||W||^2 by SGD for S streams x G settings: weights (S, d, G, C) and biases (S, G, C).

    Stream s sees ``scales[s]`` of the features; ``seeds[s]`` fixes its order of images and its start N(0, .01^2). ``grid``:
    G pairs (learning rate, weight decay). ``rows``: the images to train on, of which no copy is made (``x`` may be larger than
    memory). Momentum .9, a cosine schedule per step, no decay of the bias. ``as_layer``: weights in the order of
    ``nn.Linear``, the schedule stepped per epoch, the bias decayed. ``after_epoch(epochs done, heads)``.
    """
    rows = torch.arange(len(x)) if rows is None else rows
    S, G, N, d = len(scales), len(grid), len(rows), x.shape[1]
    if device.type == 'cuda' and x.numel() * x.element_size() < torch.cuda.mem_get_info(device)[0] / 2:
        x = x.to(device)  # otherwise batches are copied one by one
    y, generators = y.to(device), [torch.Generator().manual_seed(seed) for seed in seeds]
    if as_layer:
        starts = [torch.empty(classes, d, dtype=x.dtype).normal_(0, 0.01, generator=g).T for g in generators]
    else:
        starts = [0.01 * torch.randn(d, classes, generator=g) for g in generators]
    weight = torch.stack(starts).repeat(1, 1, G).to(device, x.dtype)  # (S, d, G C)
    bias = weight.new_zeros(S, 1, G * classes)
    heads = weight.view(S, d, G, classes), bias.view(S, G, classes)
    rate, decay = (weight.new_tensor(v).repeat_interleave(classes) for v in zip(*grid, strict=True))  # (G C)
    speed, bias_speed = torch.zeros_like(weight), torch.zeros_like(bias)
    for epoch in range(epochs):
        order = torch.stack([rows[torch.randperm(N, generator=g)] for g in generators])  # (S, N)
        same = bool((order == order[0]).all())  # then the streams share their batches
        for step, picked in enumerate(order.to(x.device).split(batch_size, dim=1)):
            done = (epoch if as_layer else epoch + step / math.ceil(N / batch_size)) / epochs
            now = rate * (0.5 * (1 + math.cos(math.pi * done)))
            parts = [x[picked[0]].to(device)] * S if same else [x[r].to(device) for r in picked]
            batch = torch.stack([scale(part) for scale, part in zip(scales, parts, strict=True)])  # (S, B, d)
            error = torch.baddbmm(bias, batch, weight).view(*batch.shape[:2], G, classes).softmax(-1)
            right = y[picked.to(device)][:, :, None, None].expand(*error.shape[:3], 1)
            error.scatter_add_(-1, right, torch.full_like(right, -1, dtype=error.dtype))
            error = error.div_(batch.shape[1]).view(*batch.shape[:2], -1)  # dCE / dlogits, (S, B, G C)
            speed.mul_(0.9).baddbmm_(batch.mT, error).addcmul_(weight, decay)
            bias_speed.mul_(0.9).add_(error.sum(1, keepdim=True))
            if as_layer:
                bias_speed.addcmul_(bias, decay)
            weight.addcmul_(speed, -now)
            bias.addcmul_(bias_speed, -now)
        if after_epoch:
            after_epoch(epoch + 1, heads)
    return heads


@torch.no_grad()
def score_heads(
    heads: Heads, x: Tensor, y: Tensor, scales: Sequence[Scale], absent: Tensor | None = None
) -> dict[str, Tensor]:
    """``dict(top1=, top5=, loss=)`` of each head, (S, G) on the CPU: percent right, mean cross-entropy (inf: diverged).

    ``absent``: (C,) booleans of the classes without a training image, which are never predicted.
    """
    weight, bias = heads
    S, d, G, C = weight.shape
    sums = {name: torch.zeros(S, G, dtype=torch.float64, device=weight.device) for name in ('top1', 'top5', 'loss')}
    for rows in torch.arange(len(x)).split(1024):
        part, label = x[rows].to(weight.device), y[rows].to(weight.device)
        for s, scale in enumerate(scales):
            logits = (scale(part) @ weight[s].reshape(d, -1)).view(-1, G, C) + bias[s]  # (n, G, C)
            known = logits if absent is None else logits.masked_fill(absent.to(logits.device), -torch.inf)
            ranks = label_ranks(known, label[:, None].expand(-1, G))  # NaN: no image right
            sums['top1'][s] += (ranks < 1).sum(0)
            sums['top5'][s] += (ranks < 5).sum(0)
            loss = -logits.log_softmax(-1).gather(-1, label[:, None, None].expand(-1, G, 1))[..., 0]
            sums['loss'][s] += loss.nan_to_num(nan=math.inf).sum(0)
    return {name: (1 if name == 'loss' else 100) * total.cpu() / len(x) for name, total in sums.items()}


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
    device: str | torch.device | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Softmax regression by SGD for every (rate, decay, scaling): the best on held-out training images, then refitted.

    All heads are trained in one pass over 1 - ``held_out`` of each class. The best has the most held-out images right (then
    the lower loss). It is trained again on the whole training set, once per seed; only those heads see the test set.
    Returns ``dict(top1=, top5=, sd=, values=)`` over seeds, ``chosen``, ``held_out`` (its top-1 there), ``by_scaling``,
    ``heads``, and ``at_edge``: which of its settings are the largest or smallest offered.
    """
    check_numbers(epochs=epochs, batch_size=batch_size, whole=True)
    check_numbers(lrs=lrs)
    check_numbers(weight_decays=weight_decays, zero=True)
    check_distinct(seeds=seeds, scalings=scalings)
    train_x, train_y, test_x, test_y, classes = as_split(train_x, train_y, test_x, test_y)
    device = torch.device(device) if device is not None else train_x.device
    fit_rows, choose_rows = split_rows(train_y.cpu().numpy(), held_out, seeds[0])
    grid = list(product(lrs, weight_decays))
    settings = dict(classes=classes, epochs=epochs, batch_size=batch_size, device=device)
    scales = [scaling_of(train_x, name) for name in scalings]  # of held-out images too: statistics use no label
    first = [seeds[0]] * len(scales)
    note = progress and (lambda done, _: progress(done, 2 * epochs))
    heads = train_heads(train_x, train_y, scales, first, grid, rows=fit_rows, after_epoch=note, **settings)
    found = score_heads(heads, train_x[choose_rows], train_y[choose_rows], scales)  # (S, G) each
    ranked = torch.where(found['top1'] == found['top1'].max(), found['loss'], torch.inf)
    if not ranked.isfinite().any():
        raise ValueError('Every head has diverged: offer smaller learning rates (lrs), or scaled features.')
    s, g = divmod(int(ranked.argmin()), len(grid))
    (lr, decay), scale = grid[g], [scales[s]] * len(seeds)
    note = progress and (lambda done, _: progress(epochs + done, 2 * epochs))
    heads = train_heads(train_x, train_y, scale, seeds, [grid[g]], after_epoch=note, **settings)
    final = score_heads(heads, test_x, test_y, scale, absent=absent_classes(train_y, classes))
    offered = dict(lr=(lr, lrs), weight_decay=(decay, weight_decays))
    over_seeds = mean_and_sd(final['top1'][:, 0].tolist())
    return dict(
        top1=over_seeds.pop('mean'),
        top5=float(final['top5'].mean()),
        **over_seeds,
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
    weight_decay: float = 1e-6,
    scaling: str = 'none',
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Softmax regression by SGD, cosine schedule stepped per epoch, no augmentation: percent right after the last epoch.

    The small-set protocol of Zheng et al., ICLR 2023 (the defaults); the learning rate is absolute. ``best_top1`` is the best
    epoch *on the test set*, which many papers print; it is optimistic. ``seed``: of initial weights and order of images.
    """
    check_numbers(epochs=epochs, batch_size=batch_size, whole=True)
    check_numbers(lr=lr)
    check_numbers(weight_decay=weight_decay, zero=True)
    train_x, train_y, test_x, test_y, classes = as_split(train_x, train_y, test_x, test_y)
    device = torch.device(device) if device is not None else train_x.device
    scale, absent, scores = [scaling_of(train_x, scaling)], absent_classes(train_y, classes), []

    def score(done: int, heads: Heads) -> None:
        scores.append(score_heads(heads, test_x, test_y, scale, absent))
        if progress:
            progress(done, epochs)

    settings = dict(classes=classes, epochs=epochs, batch_size=batch_size, device=device)
    train_heads(train_x, train_y, scale, [seed], [(lr, weight_decay)], after_epoch=score, as_layer=True, **settings)
    last, best = scores[-1], max(float(each['top1']) for each in scores)
    return dict(top1=float(last['top1']), top5=float(last['top5']), best_top1=best)
