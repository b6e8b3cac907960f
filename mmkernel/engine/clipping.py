"""Clipping of gradients, by their norm or by value."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from mmkernel.checks import check_numbers
from mmkernel.registry import check_keywords

CLIPPING = {'norm': torch.nn.utils.clip_grad_norm_, 'value': torch.nn.utils.clip_grad_value_}


def check_clipping(clip_grad: Mapping[str, Any]) -> None:
    """ValueError for ``clip_grad`` that torch's function would refuse at the first step, or that means nothing."""
    kind = clip_grad.get('type', 'norm')
    if kind not in CLIPPING:
        raise ValueError(f"optim_wrapper.clip_grad.type is 'norm' or 'value', got {kind!r}.")
    given = {key: value for key, value in clip_grad.items() if key != 'type'}
    check_keywords(CLIPPING[kind], ['parameters', *given], 'optim_wrapper.clip_grad')
    limit = dict(norm='max_norm', value='clip_value')[kind]
    check_numbers('optim_wrapper.clip_grad', **{limit: given.get(limit)})
    if given.get('norm_type') != math.inf:
        check_numbers('optim_wrapper.clip_grad', none=True, norm_type=given.get('norm_type'))


def clip(
    parameters: list[nn.Parameter], norm: Tensor, by: Callable[..., Any], settings: Mapping[str, Any]
) -> Tensor | None:
    """Clip the gradients, whose 2-norm is ``norm``, without reading it. Returns the norm that was limited, if one was."""
    if by is not CLIPPING['norm']:
        by(parameters, **settings)
        return None
    if settings.get('norm_type') not in (None, 2, 2.0):
        norm = get_total_norm([p.grad for p in parameters], settings['norm_type'])
    clip_grads_with_norm_(parameters, settings['max_norm'], norm, settings.get('foreach'))
    return norm
