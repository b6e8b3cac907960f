"""The contract between encoders and objectives, and how views become embeddings.

Shape legend, used in every comment: V online views, G target views, B local batch, N = B W global batch, q embedding
width, L kernel order, W ranks.

Which views share a forward pass, and with it their batch-norm statistics: ``'view'``: one pass a view; ``'size'``: views of
one image size together; ``'all'``: everything in one pass. Backbone and neck may follow different words.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkernel.distributed import columns_to_rows, world_size
from mmkernel.distributed.shards import all_rows
from mmkernel.kernels.layouts import promoted
from mmkernel.losses.alignment import pairs_of_views
from mmkernel.models.image_sizes import named_sizes

BATCHINGS = ('view', 'size', 'all')
Views = Tensor | Sequence[Tensor]


@dataclass
class Embeddings:
    """What a head sees of a batch.

    Of a neck that is sharded over ranks, tensors are (V, N, q/W): this rank's columns of the rows of all ranks, and ``columns``
    is q; see ``mmkernel.distributed.shards``. Otherwise they are as written here.
    """

    online: Tensor  # (V, B, q) embeddings of the online views
    predicted: Tensor  # (V, B, q) predictor(online); online itself where there is no predictor
    target: Tensor  # (G, B, q) what predictions must match: online, its stop-gradient, or the momentum encoder's
    pairs: list[tuple[int, int]]  # positions (i in predicted, j in target) that must agree: of different source views
    sample_index: Tensor  # (B,) dataset index of each image
    online_views: tuple[int, ...]  # source view of each online position
    target_views: tuple[int, ...]  # source view of each target position
    computed_in: torch.dtype | None = None  # what the encoder made the online rows in, once they are promoted
    columns: int | None = None

    @classmethod
    def of(
        cls, views: Views, predicted: Views | None = None, target: Views | None = None, sample_index: Tensor | None = None
    ) -> 'Embeddings':  # fmt: skip
        """From tensors (B, q), one a view, or stacked ones; what is None is ``views``. All pairs of different views.

        ``target``: of the first G views; one view and one target are two different views. ValueError for other shapes.
        """
        online = _stacked('the views', views)  # (V, B, q)
        V, B, q = online.shape
        predicted = online if predicted is None else _stacked('predicted', predicted)
        online_views = target_views = tuple(range(V))
        if target is not None:
            target = _stacked('target', target)
            target_views = (1,) if V == 1 else tuple(range(len(target)))
        else:
            target = online
        for name, given, fits in (
            ('predicted', predicted, len(predicted) == V),
            ('target', target, len(target) <= V),
        ):
            if given.shape[1:] != (B, q) or not fits:
                raise ValueError(
                    f'{name} holds {_words(given)}, the views are {_words(online)}: give one of that shape for each view'
                    f'{", or for the first few views" if name == "target" else ""}.'
                )
        if sample_index is None:
            sample_index = torch.arange(B, device=online.device)
        elif sample_index.shape != (B,) or sample_index.is_floating_point():
            raise ValueError(
                f'sample_index has shape {tuple(sample_index.shape)} and type {sample_index.dtype}; expected one integer for '
                f'each of {B} rows.'
            )
        pairs = pairs_of_views(online_views, target_views)
        return cls(online, predicted, target, pairs, sample_index, online_views, target_views)

    @classmethod
    def from_views(cls, *z: Tensor, sample_index: Tensor | None = None) -> 'Embeddings':
        """The plain case: predicted = target = online, all ordered pairs. ``z``: V tensors (B, q)."""
        return cls.of(z, sample_index=sample_index)

    @property
    def width(self) -> int:
        """q."""
        return self.columns or self.online.shape[-1]

    @property
    def rows(self) -> int:
        """N."""
        return all_rows(self.online, self.columns)

    def as_rows(self, z: Tensor) -> Tensor:
        """One of the tensors, or a view of it, as rows (..., B, q) without a graph. Of columns every rank must ask."""
        if self.columns is None:
            return z.detach()
        return columns_to_rows(F.pad(z, (0, -(-self.columns // world_size()) - z.shape[-1])), self.columns)

    def promoted(self) -> 'Embeddings':
        """Half precision -> float32, float64 stays: at q = 32 768 a typical t^3 is 1e-7, below what half can hold."""
        online = promoted(self.online)
        predicted = online if self.predicted is self.online else promoted(self.predicted)
        target = online if self.target is self.online else promoted(self.target)
        computed_in = self.computed_in or self.online.dtype
        return replace(self, online=online, predicted=predicted, target=target, computed_in=computed_in)


def _stacked(name: str, views: Views) -> Tensor:
    """(B, q) tensors, or one (V, B, q) or (B, q) -> (V, B, q)."""
    if not isinstance(views, Tensor) and len(views) == 1 and isinstance(views[0], Tensor) and views[0].ndim == 2:
        views = views[0]  # a single view needs no copy
    if isinstance(views, Tensor) and views.ndim in (2, 3) and views.is_floating_point():
        return views if views.ndim == 3 else views[None]
    given = [views] if isinstance(views, Tensor) else views
    fine = all(isinstance(view, Tensor) and view.ndim == 2 and view.is_floating_point() for view in given)
    if not given or not fine or len({view.shape for view in given}) > 1:
        found = [f'{tuple(v.shape)} {v.dtype}' if isinstance(v, Tensor) else type(v).__name__ for v in given]
        raise ValueError(
            f'Expected at least one view, each a (B, q) matrix of floating point numbers, all of one shape; {name} are '
            f'{", ".join(found) or "none"}. Stacked views are called as head(*z), feature maps are flattened: z.flatten(1).'
        )
    return torch.stack(tuple(given))


def _words(z: Tensor) -> str:
    return f'{z.shape[0]} of shape {tuple(z.shape[1:])}'


def encode(backbone: nn.Module, neck: nn.Module, views: list[Tensor], batching: str, neck_batching: str) -> Tensor:
    """z = neck(backbone(views)): V images (B, C, H_v, W_v) -> (V, B, q)."""
    groups = group_views(views, batching)
    with named_sizes(backbone, [tuple(view.shape[2:]) for view in views]):
        if groups == group_views(views, neck_batching) and not _takes_views(neck, views, neck_batching):
            return _in_groups(lambda joined: neck(backbone(joined)), views, groups)  # what went together stays together
        return project(neck, _in_groups(backbone, views, groups), views, neck_batching)


def project(part: nn.Module, z: Tensor, views: list[Tensor], batching: str) -> Tensor:
    """A neck or predictor of all views, grouped as their images ``views`` are: (V, B, d) -> (V, B, q)."""
    return part(z) if _takes_views(part, views, batching) else _in_groups(part, z, group_views(views, batching))


def _takes_views(part: nn.Module, views: list[Tensor], batching: str) -> bool:
    """Whether ``part`` takes (V, B, d) and separates the views itself: one matrix product instead of V."""
    return batching == 'view' and len(views) > 1 and getattr(part, 'takes_views', False)


def group_views(views: list[Tensor], batching: str) -> list[list[int]]:
    """Positions of the views that share a pass, in order of first appearance. ``views``: V images (B, C, H_v, W_v)."""
    key = dict(view=lambda v: v, size=lambda v: views[v].shape[1:], all=lambda v: None)[batching]
    groups: dict = {}
    for v in range(len(views)):
        groups.setdefault(key(v), []).append(v)
    return list(groups.values())


def _in_groups(module: Callable, tensors: Views, groups: list[list[int]]) -> Tensor:
    """``module`` of V tensors (B, ...), those of a group in one pass -> (V, B, q), copied only where there are several."""
    sizes = [len(tensor) for tensor in tensors]
    if len(set(sizes)) > 1:
        raise ValueError(f'Every view of a batch holds the same images, but the views have {sizes} of them.')
    if isinstance(tensors, Tensor) and len(groups) == 1:
        return module(tensors.flatten(0, 1)).unflatten(0, (len(tensors), -1))
    tensors = tensors.unbind() if isinstance(tensors, Tensor) else tensors
    outputs = [module(_joined([tensors[v] for v in group])) for group in groups]
    z = (outputs[0] if len(outputs) == 1 else torch.cat(outputs)).unflatten(0, (len(tensors), -1))
    order = [v for group in groups for v in group]
    return z if order == sorted(order) else torch.stack([z[order.index(v)] for v in range(len(tensors))])


def _joined(tensors: list[Tensor]) -> Tensor:
    shapes = {tuple(tensor.shape[1:]) for tensor in tensors}
    if len(shapes) > 1:
        raise ValueError(
            f"batching='all' needs views of one size, got {sorted(shapes)}. Use batching='size' and neck_batching='all'."
        )
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)
