"""Transformation prediction: what features still tell of the transformation of an image, and embeddings no longer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkernel.checks import check_numbers
from mmkernel.evaluation.features import feature_sets
from mmkernel.evaluation.inputs import absent_classes, as_split, scale_features
from mmkernel.evaluation.metrics import percent, top_k

STAGES = dict(backbone='h', neck='g(h)')


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
    label (see ``TransformedSource``), seen by the backbone (h) and by backbone and neck (g(h)). ``probe`` goes to
    ``mlp_probe``. 'grey' is left out where images have one channel: it is not defined.
    """
    rows = {name: dict(name=name, scores={}) for name in encoders}
    for task in tasks:
        if task == 'grey' and len(cfg['data_preprocessor']['mean']) != 3:
            continue
        part = transformed_part(cfg['evaluation'], task, noise_sigma, seed)
        for stage, short in STAGES.items():
            say = (
                (lambda name, *c, task=task, short=short: progress(f'{task}, {name} {short}', *c)) if progress else None
            )
            for name, *data in feature_sets(dict(evaluation=part), encoders, False, stage, say, cache):
                rows[name]['scores'].setdefault(task, {})[short] = mlp_probe(*data, seed=seed, **probe)
    return list(rows.values())


def transformed_part(part: Mapping[str, Any], task: str, noise_sigma: float, seed: int) -> dict[str, Any]:
    """The evaluation part of a config with each source wrapped; its own transform comes before the transformation."""
    wrapped = dict(
        type='TransformedSource', task=task, transform=part.get('transform'), seed=seed, noise_sigma=noise_sigma
    )
    return {**part, 'transform': None, **{split: dict(wrapped, source=part[split]) for split in ('train', 'test')}}


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
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """y ~ W_2 relu(W_1 x), trained by AdamW with a cosine schedule: percent of test images right after the last epoch.

    Chen et al., ICML 2020, table 3: one hidden layer on frozen features; the paper gives neither its width nor the
    optimizer, so these are ours. Features are standardised by the training set's statistics.

    Returns ``dict(top1=, majority=)``; ``majority``: what always answering the commonest training label scores.
    The result depends on ``seed`` alone.
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
    for epoch in range(epochs):
        for rows in torch.randperm(len(train_x), generator=order).split(batch_size):
            loss = F.cross_entropy(net(train_x[rows].to(device)), train_y[rows].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        if progress:
            progress(epoch + 1, epochs)
    with torch.no_grad():
        logits = torch.cat([net(x.to(device)).cpu() for x in test_x.split(4096)])
    logits.masked_fill_(absent_classes(train_y, classes).cpu(), -torch.inf)
    test_y, commonest = test_y.cpu(), train_y.bincount().argmax().cpu()
    return dict(**top_k(logits, test_y, 1), majority=percent(test_y == commonest))
