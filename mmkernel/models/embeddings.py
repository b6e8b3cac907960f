"""The one contract between encoders and objectives.

Shape legend, used in every comment: V online views, G target views, B local batch, N = B W global batch, q embedding
width, L kernel order, W ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass
class Embeddings:
    """What a head sees of a batch."""

    online: Tensor  # (V, B, q) embeddings of the online views
    predicted: Tensor  # (V, B, q) predictor(online); online itself where there is no predictor
    target: Tensor  # (G, B, q) what predictions must match: online, its stop-gradient, or the momentum encoder's
    pairs: list[
        tuple[int, int]
    ]  # positions (i in predicted, j in target) that must agree: all whose source views differ
    sample_index: Tensor  # (B,) dataset index of each image
    online_views: tuple[int, ...]  # source view of each online position
    target_views: tuple[int, ...]  # source view of each target position
    computed_in: torch.dtype | None = None  # what the encoder made the online rows in, once they are promoted

    @classmethod
    def from_views(cls, *z: Tensor, sample_index: Tensor | None = None) -> Embeddings:
        """The plain case: predicted = target = online, all ordered pairs. ``z``: V tensors (B, q)."""
        if len(z) < 1 or any(view.ndim != 2 or view.shape != z[0].shape for view in z):
            shapes = [tuple(view.shape) for view in z]
            raise ValueError(f'Expected at least one view, each a (B, q) matrix of one shape; got shapes {shapes}.')
        online = torch.stack(z)
        views = tuple(range(len(z)))
        if sample_index is None:
            sample_index = torch.arange(z[0].shape[0], device=online.device)
        return cls(online, online, online, pairs_of_views(views, views), sample_index, views, views)

    @property
    def width(self) -> int:
        """q."""
        return self.online.shape[-1]

    def promoted(self) -> Embeddings:
        """Half precision -> float32, float64 stays: at q = 32 768 a typical t^3 is 1e-7, below what half can hold."""
        online = _promote(self.online)
        predicted = online if self.predicted is self.online else _promote(self.predicted)
        target = online if self.target is self.online else _promote(self.target)
        computed_in = self.computed_in or self.online.dtype
        return replace(self, online=online, predicted=predicted, target=target, computed_in=computed_in)

    def symmetric_pairs(self) -> list[tuple[int, int]]:
        """Pairs for a term with d(a, b) = d(b, a): each unordered pair once where (i, j) and (j, i) are the same two rows.

        Only where predicted, target and online are one tensor; the mean over pairs is then unchanged.
        """
        if self.predicted is self.online and self.target is self.online:
            return [(i, j) for i, j in self.pairs if i < j]
        return self.pairs


def pairs_of_views(online_views: tuple[int, ...], target_views: tuple[int, ...]) -> list[tuple[int, int]]:
    """All (i, j) whose source views differ, target by target."""
    return [(i, j) for j, g in enumerate(target_views) for i, v in enumerate(online_views) if v != g]


def _promote(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
