"""Means over pairs of views."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_over_pairs(losses: list[Tensor]) -> Tensor:
    """The mean of one scalar per pair of views; ValueError where there is no pair."""
    if not losses:
        raise ValueError(
            'No pair of views to compare: a batch needs at least two views. Check the views of the data config.'
        )
    return torch.stack(losses).mean()
