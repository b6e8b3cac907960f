"""Linear classifiers trained side by side: S streams of features x G settings, one batched matrix product per step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from mmkernel.evaluation.metrics import label_ranks

Scale = Callable[[Tensor], Tensor]
Heads = tuple[Tensor, Tensor]  # weights (S, d, G, C) and biases (S, G, C)


def columns_first(width: int, classes: int, dtype: torch.dtype, generator: Generator) -> Tensor:
    return 0.01 * torch.randn(width, classes, generator=generator)


def rows_first(width: int, classes: int, dtype: torch.dtype, generator: Generator) -> Tensor:
    """In the order in which torch.nn.Linear holds its weights."""
    return torch.empty(classes, width, dtype=dtype).normal_(0, 0.01, generator=generator).T


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
    rows: Tensor | None = None,
    after_epoch: Callable[[int, Heads], None] | None = None,
    start: Callable[..., Tensor] = columns_first,
    rate_per_epoch: bool = False,
    decay_bias: bool = False,
) -> Heads:
    """min mean CE + decay/2 ||W||^2 by SGD for S streams x G settings: weights (S, d, G, C) and biases (S, G, C).

    Stream s sees ``scales[s]`` of the features in an order (and from a ``start`` N(0, .01^2)) that ``seeds[s]`` fixes;
    ``grid`` holds G pairs (learning rate, weight decay), ``rows`` the images to train on (None: all; no copy is made of
    them, because ``x`` may be larger than memory). The rate falls along a cosine, per step or per epoch. A head that
    diverges disturbs no other. ``after_epoch(epochs done, heads)``.
    """
    rows = torch.arange(len(x)) if rows is None else rows
    S, G, N, d = len(scales), len(grid), len(rows), x.shape[1]
    x, y = _on_device_if_it_fits(x, device), y.to(device)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    weight = torch.stack([start(d, classes, x.dtype, g)[:, None] for g in generators])  # (S, d, 1, C)
    weight = weight.expand(S, d, G, classes).reshape(S, d, G * classes).to(device, x.dtype, copy=True)
    bias = weight.new_zeros(S, 1, G * classes)
    heads = weight.view(S, d, G, classes), bias.view(S, G, classes)
    rate, decay = (weight.new_tensor(v).repeat_interleave(classes) for v in zip(*grid, strict=True))  # (G C)
    speed, bias_speed = torch.zeros_like(weight), torch.zeros_like(bias)
    steps = math.ceil(N / batch_size)
    for epoch in range(epochs):
        order = torch.stack([rows[torch.randperm(N, generator=g)] for g in generators])  # (S, N)
        for step, picked in enumerate(order.to(x.device).split(batch_size, dim=1)):
            done = (epoch if rate_per_epoch else epoch + step / steps) / epochs
            now = rate * (0.5 * (1 + math.cos(math.pi * done)))
            batch = _gather(x, picked, scales, device)  # (S, B, d)
            error = torch.baddbmm(bias, batch, weight).view(*batch.shape[:2], G, classes).softmax(-1)
            error.scatter_add_(-1, *_targets(y[picked.to(device)], error))
            error = error.div_(batch.shape[1]).view(*batch.shape[:2], -1)  # dCE / dlogits, (S, B, G C)
            speed.mul_(momentum).baddbmm_(batch.mT, error).addcmul_(weight, decay)
            bias_speed.mul_(momentum).add_(error.sum(1, keepdim=True))
            if decay_bias:
                bias_speed.addcmul_(bias, decay)
            weight.addcmul_(speed, -now)
            bias.addcmul_(bias_speed, -now)
        if after_epoch:
            after_epoch(epoch + 1, heads)
    return heads


def _on_device_if_it_fits(x: Tensor, device: torch.device) -> Tensor:
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
    heads: Heads, x: Tensor, y: Tensor, scales: Sequence[Scale], absent: Tensor | None = None, chunk: int = 1024
) -> dict[str, Tensor]:
    """``dict(top1=, top5=, loss=)`` of each head, (S, G) on the CPU: percent right, mean cross-entropy (inf: diverged).

    ``absent``: (C,) booleans, the classes that no image of the training had, which are never among the first.
    """
    weight, bias = heads
    S, d, G, C = weight.shape
    sums = {name: torch.zeros(S, G, dtype=torch.float64, device=weight.device) for name in ('top1', 'top5', 'loss')}
    for rows in torch.arange(len(x)).split(chunk):
        part, label = x[rows].to(weight.device), y[rows].to(weight.device)
        for s, scale in enumerate(scales):
            logits = (scale(part) @ weight[s].reshape(d, -1)).view(-1, G, C) + bias[s]  # (n, G, C)
            known = logits if absent is None else logits.masked_fill(absent.to(logits.device), -torch.inf)
            ranks = label_ranks(known, label[:, None].expand(-1, G))  # a head that has diverged is right about nothing
            sums['top1'][s] += (ranks < 1).sum(0)
            sums['top5'][s] += (ranks < 5).sum(0)
            loss = -logits.log_softmax(-1).gather(-1, label[:, None, None].expand(-1, G, 1))[..., 0]
            sums['loss'][s] += loss.nan_to_num(nan=math.inf).sum(0)
    return {name: (1 if name == 'loss' else 100) * total.cpu() / len(x) for name, total in sums.items()}
