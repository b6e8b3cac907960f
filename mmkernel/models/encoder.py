"""Views -> embeddings: which views share a forward pass, and with it their batch-norm statistics.

``'view'``: one pass a view. ``'size'``: views of one image size together. ``'all'``: everything in one pass.
Backbone and neck may follow different words: one pass a size through the backbone, one in all through the neck.
"""

from __future__ import annotations

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


def apply_grouped(module: nn.Module, tensors: list[Tensor], groups: list[list[int]]) -> list[Tensor]:
    """``module`` of each tensor (B, ...), the members of a group concatenated into one pass, view-major."""
    outputs: list[Tensor] = [None] * len(tensors)
    for group in groups:
        shapes = {tuple(tensors[v].shape[1:]) for v in group}
        if len(shapes) > 1:
            raise ValueError(
                f"batching='all' needs views of one size, got {sorted(shapes)}. Use batching='size' and neck_batching='all'."
            )
        joined = tensors[group[0]] if len(group) == 1 else torch.cat([tensors[v] for v in group])
        for v, output in zip(group, module(joined).chunk(len(group)), strict=True):
            outputs[v] = output
    return outputs


def encode(backbone: nn.Module, neck: nn.Module, views: list[Tensor], batching: str, neck_batching: str) -> Tensor:
    """z = neck(backbone(views)): V images (B, C, H_v, W_v) -> (V, B, q)."""
    features = apply_grouped(backbone, views, group_views(views, batching))  # V x (B, d)
    return torch.stack(apply_grouped(neck, features, group_views(views, neck_batching)))


def predict(predictor: nn.Module | None, online: Tensor, views: list[Tensor], neck_batching: str) -> Tensor:
    """p = predictor(z), batched as the neck is: (V, B, q) -> (V, B, q); z itself without a predictor."""
    if predictor is None:
        return online
    return torch.stack(apply_grouped(predictor, list(online), group_views(views, neck_batching)))
