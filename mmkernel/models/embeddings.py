"""The one contract between encoders and objectives.

Shape legend, used in every comment: V online views, G target views, B local batch, N = B W global batch, q embedding
width, L kernel order, W ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    def of(
        cls,
        views: Tensor | Sequence[Tensor],
        predicted: Tensor | Sequence[Tensor] | None = None,
        target: Tensor | Sequence[Tensor] | None = None,
        sample_index: Tensor | None = None,
    ) -> Embeddings:
        """From tensors (B, q), one a view, or stacked ones; what is None is ``views``. All pairs of different views.

        ``target``: of the first G views; one view and one target are two different views. ValueError for other shapes.
        """
        online = _stacked('the views', views)  # (V, B, q)
        V, B, q = online.shape
        predicted = online if predicted is None else _stacked('predicted', predicted)
        if predicted.shape != online.shape:
            raise ValueError(
                f'predicted holds {_words(predicted)}, the views are {_words(online)}: give predictor(z) of each view.'
            )
        online_views = target_views = tuple(range(V))
        if target is not None:
            target = _stacked('target', target)
            if target.shape[1:] != (B, q) or len(target) > V:
                raise ValueError(
                    f'target holds {_words(target)}, the views are {_words(online)}: give one target of that shape for each '
                    'view, or for the first few views.'
                )
            target_views = (1,) if V == 1 else tuple(range(len(target)))
        if sample_index is None:
            sample_index = torch.arange(B, device=online.device)
        elif sample_index.shape != (B,) or sample_index.is_floating_point():
            raise ValueError(
                f'sample_index has shape {tuple(sample_index.shape)} and type {sample_index.dtype}; expected one integer for '
                f'each of {B} rows.'
            )
        target = online if target is None else target
        pairs = pairs_of_views(online_views, target_views)
        return cls(online, predicted, target, pairs, sample_index, online_views, target_views)

    @classmethod
    def from_views(cls, *z: Tensor, sample_index: Tensor | None = None) -> Embeddings:
        """The plain case: predicted = target = online, all ordered pairs. ``z``: V tensors (B, q)."""
        return cls.of(z, sample_index=sample_index)

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


def _stacked(name: str, views: Tensor | Sequence[Tensor]) -> Tensor:
    """(B, q) tensors, or one (V, B, q) or (B, q) -> (V, B, q)."""
    if not isinstance(views, Tensor) and len(views) == 1 and isinstance(views[0], Tensor) and views[0].ndim == 2:
        views = views[0]  # a single view needs no copy
    if isinstance(views, Tensor) and views.ndim in (2, 3) and views.is_floating_point():
        return views if views.ndim == 3 else views[None]
    given = [views] if isinstance(views, Tensor) else views
    if (
        not given
        or any(not isinstance(view, Tensor) or view.ndim != 2 or not view.is_floating_point() for view in given)
        or any(view.shape != given[0].shape for view in given)
    ):
        found = [f'{tuple(v.shape)} {v.dtype}' if isinstance(v, Tensor) else type(v).__name__ for v in given]
        raise ValueError(
            f'Expected at least one view, each a (B, q) matrix of floating point numbers, all of one shape; {name} are '
            f'{", ".join(found) or "none"}. Stacked views are called as head(*z), feature maps are flattened: z.flatten(1).'
        )
    return torch.stack(tuple(given))


def _words(z: Tensor) -> str:
    return f'{z.shape[0]} of shape {tuple(z.shape[1:])}'


def _promote(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
