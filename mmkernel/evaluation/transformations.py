"""What an encoder still knows of the transformation of an image, and what its projector has thrown away."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkernel.evaluation.inputs import as_split
from mmkernel.evaluation.linear import scale_features


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
    train_x, train_y, test_x, test_y, classes = as_split(train_x, train_y, test_x, test_y)
    train_x, test_x = scale_features(train_x, test_x, 'standard')
    device = torch.device(device) if device is not None else train_x.device
    order = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(train_x.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, classes)).to(device)
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
        predicted = torch.cat([net(rows.to(device)).argmax(1).cpu() for rows in test_x.split(4096)])
    commonest = train_y.bincount().argmax().cpu()
    score = lambda guess: 100 * float((guess == test_y.cpu()).double().mean())  # noqa: E731
    return dict(top1=score(predicted), majority=score(commonest))
