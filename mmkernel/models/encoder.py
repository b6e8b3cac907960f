"""Views -> embeddings: which views share a forward pass, and with it their batch-norm statistics.

``'view'``: one pass a view. ``'size'``: views of one image size together. ``'all'``: everything in one pass.
Backbone and neck may follow different words: one pass a size through the backbone, one in all through the neck.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

BATCHINGS = ('view', 'size', 'all')


def group_views(views: list[Tensor], batching: str) -> list[list[int]]:
    """Positions of the views that share a pass, in order of first appearance. ``views``: V images (B, C, H_v, W_v)."""
    if batching == 'view':
        return [[v] for v in range(len(views))]
    if batching == 'size':
        groups: dict[tuple[int, ...], list[int]] = {}
        for v, view in enumerate(views):
            groups.setdefault(tuple(view.shape[1:]), []).append(v)
        return list(groups.values())
    if batching == 'all':
        return [list(range(len(views)))]
    raise ValueError(f'batching is one of {", ".join(map(repr, BATCHINGS))}, got {batching!r}.')


def apply_grouped(module: nn.Module, tensors: Sequence[Tensor], groups: list[list[int]]) -> list[Tensor]:
    """``module`` of each tensor (B, ...), the members of a group concatenated into one pass, view-major."""
    outputs: list[Tensor] = [None] * len(tensors)
    for group in groups:
        output = module(_joined(tensors, group))
        # one part is left as it is: a chunk of it would cost a copy in backward
        for v, part in zip(group, [output] if len(group) == 1 else output.chunk(len(group)), strict=True):
            outputs[v] = part
    return outputs


def apply_stacked(module: nn.Module | Callable, tensors: Sequence[Tensor], groups: list[list[int]]) -> Tensor:
    """``apply_grouped`` as one tensor (V, B, q), copied only where there are several passes."""
    sizes = [len(tensor) for tensor in tensors]
    if len(set(sizes)) > 1:
        raise ValueError(f'Every view of a batch holds the same images, but the views have {sizes} of them.')
    outputs = [module(_joined(tensors, group)) for group in groups]
    z = (outputs[0] if len(outputs) == 1 else torch.cat(outputs)).unflatten(0, (len(tensors), -1))
    order = [v for group in groups for v in group]
    return z if order == sorted(order) else torch.stack([z[order.index(v)] for v in range(len(tensors))])


def _joined(tensors: Sequence[Tensor], group: list[int]) -> Tensor:
    shapes = {tuple(tensors[v].shape[1:]) for v in group}
    if len(shapes) > 1:
        raise ValueError(
            f"batching='all' needs views of one size, got {sorted(shapes)}. Use batching='size' and neck_batching='all'."
        )
    if isinstance(tensors, Tensor) and len(group) == len(tensors):
        return tensors.flatten(0, 1)
    return tensors[group[0]] if len(group) == 1 else torch.cat([tensors[v] for v in group])


def encode(backbone: nn.Module, neck: nn.Module, views: list[Tensor], batching: str, neck_batching: str) -> Tensor:
    """z = neck(backbone(views)): V images (B, C, H_v, W_v) -> (V, B, q)."""
    groups, neck_groups = group_views(views, batching), group_views(views, neck_batching)
    if neck_batching == 'view' and _takes_views(neck, views):
        return neck(torch.stack(apply_grouped(backbone, views, groups)))
    if groups == neck_groups:  # what went through the backbone together stays together
        return apply_stacked(lambda joined: neck(backbone(joined)), views, groups)
    return apply_stacked(neck, apply_grouped(backbone, views, groups), neck_groups)


def _takes_views(part: nn.Module, views: list[Tensor]) -> bool:
    """Whether ``part`` takes (V, B, d) and keeps views apart itself: one product of its weights in place of V."""
    return len(views) > 1 and getattr(part, 'takes_views', False) and len({len(view) for view in views}) == 1


def predict(predictor: nn.Module | None, online: Tensor, views: list[Tensor], neck_batching: str) -> Tensor:
    """p = predictor(z), batched as the neck is: (V, B, q) -> (V, B, q); z itself without a predictor."""
    if predictor is None:
        return online
    if neck_batching == 'view' and _takes_views(predictor, views):
        return predictor(online)
    groups = group_views(views, neck_batching)
    return apply_stacked(predictor, online if len(groups) == 1 else online.unbind(), groups)
