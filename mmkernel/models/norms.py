"""Normalisation layers of embeddings, by short name or config."""

from __future__ import annotations

from torch import nn

from mmkernel.registry import MODELS

_SHORT = {'BN': nn.BatchNorm1d, 'LN': nn.LayerNorm}
for _name, _layer in _SHORT.items():
    MODELS.register_module(name=_name, module=_layer)  # so that the check of a config knows their keywords


def build_norm(norm: str | dict | None, width: int) -> nn.Module | None:
    """None, 'BN', 'LN', or dict(type='BN', affine=False, ...) -> a layer for (B, ``width``) rows.

    A type other than the two short names is looked up in MODELS and gets the width as its first argument.
    """
    if norm is None:
        return None
    arguments = dict(type=norm) if isinstance(norm, str) else dict(norm)
    name = arguments.pop('type')
    layer = _SHORT[name] if name in _SHORT else MODELS.get(name)
    return layer(width, **arguments)
