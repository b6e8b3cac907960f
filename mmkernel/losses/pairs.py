"""Means over pairs of views."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def mean_over_pairs(losses: list[Tensor]) -> Tensor:
    """The mean of one scalar per pair of views; ValueError where there is no pair."""
    check_pairs(losses)
    return torch.stack(losses).mean()


def check_pairs(pairs: Sequence, verb: str = 'compare') -> None:
    """ValueError where there is none."""
    if not pairs:
        raise ValueError(
            f'No pair of views to {verb}: an objective of pairs needs at least two views, head(z1, z2) in a loop of your '
            'own. In a config, check the views of the data.'
        )
