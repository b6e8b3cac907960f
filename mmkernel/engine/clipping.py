"""Gradient clipping, and norms of gradients of which ranks hold shards."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, clip_grads_with_norm_, get_total_norm
from torch.optim import SGD, Adam, AdamW, Optimizer

from mmkernel.checks import check_numbers
from mmkernel.distributed import sum_over_ranks_
from mmkernel.distributed.shards import Shard
from mmkernel.engine.optimizers import LARS
from mmkernel.registry import check_keywords

CLIPPING = {'norm': (clip_grad_norm_, 'max_norm'), 'value': (clip_grad_value_, 'clip_value')}


def check_clipping(clip_grad: Mapping[str, Any]) -> None:
    """ValueError for a ``clip_grad`` that torch's function would refuse at the first step, or that has no effect."""
    kind = clip_grad.get('type', 'norm')
    if kind not in CLIPPING:
        raise ValueError(f"optim_wrapper.clip_grad.type is 'norm' or 'value', got {kind!r}.")
    function, limit = CLIPPING[kind]
    given = {key: value for key, value in clip_grad.items() if key != 'type'}
    check_keywords(function, ['parameters', *given], 'optim_wrapper.clip_grad')
    check_numbers('optim_wrapper.clip_grad', **{limit: given.get(limit)})
    if given.get('norm_type') != math.inf:
        check_numbers('optim_wrapper.clip_grad', none=True, norm_type=given.get('norm_type'))


def whole_norm(parameters: list[Tensor]) -> Tensor:
    """||g|| of all gradients, those of the shards of all ranks included: one number on every rank."""
    own = [p.grad for p in parameters if not isinstance(p, Shard)]
    if len(own) == len(parameters):
        return get_total_norm(own)
    shards = get_total_norm([p.grad for p in parameters if isinstance(p, Shard)])
    return (get_total_norm(own).to(shards.device).square() + sum_over_ranks_(shards.square())).sqrt()


def clip(parameters: list[Tensor], norm: Tensor, function: Callable, given: Mapping[str, Any]) -> Tensor:
    """What torch's ``function`` does, and the norm to log: the one that it returns, or the 2-norm, which is known."""
    if function is clip_grad_norm_ and given.get('norm_type') in (None, 2):
        clip_grads_with_norm_(parameters, given['max_norm'], norm, given.get('foreach'))
        return norm
    found = function(parameters, **given)
    return norm if found is None else found  # clip_grad_value_ returns nothing


def check_for_shards(optimizer: Optimizer, precision: str, clip_grad: Mapping[str, Any] | None) -> None:
    """ValueError for what would act on this rank's part of a neck, or an encoder, as if it were the whole."""
    if not any(isinstance(p, Shard) for group in optimizer.param_groups for p in group['params']):
        return
    clip, wrong = dict(clip_grad or {}), ''
    if type(optimizer) not in (LARS, SGD, Adam, AdamW):
        wrong = f"{type(optimizer).__name__} is not known to: take LARS, or torch's SGD, Adam or AdamW"
    elif precision == 'float16':
        wrong = "the loss scaling of precision='float16' does not: take 'bfloat16' or 'float32'"
    elif clip.get('type', 'norm') == 'norm' and clip.get('norm_type') not in (None, 2):
        wrong = f"clip_grad with norm_type={clip['norm_type']} does not: take 2, or type='value'"
    if wrong:
        raise ValueError(f'neck.sharded, fsdp: a step must count the shards of all ranks as one, and {wrong}.')
