"""Optimizers whose kernels skip a step by a flag on the device, ``found_inf``: LARS, and torch's own where they are fused."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.optim import SGD, Adam, AdamW, Optimizer


def fuse(optimizer: Optimizer) -> bool:
    """Whether ``optimizer`` obeys ``found_inf``. torch's SGD, Adam and AdamW are fused for it unless the config says otherwise.

    SGD with dampening is not: its first step is another than the later ones, so momentum cannot begin at zero.
    """
    if type(optimizer) in (SGD, Adam, AdamW):
        groups = optimizer.param_groups
        if any(group.get('dampening') for group in groups):
            return False
        if all(_can_be_fused(group) for group in groups):
            for settings in (optimizer.defaults, *groups):
                settings['fused'] = True
            optimizer._step_supports_amp_scaling = True  # what the constructors set for fused=True
        optimizer.register_load_state_dict_post_hook(match_layouts)
        return all(group['fused'] for group in groups)
    return bool(getattr(optimizer, '_step_supports_amp_scaling', False))


def _can_be_fused(group: dict[str, Any]) -> bool:
    open_to_it = group['fused'] is None and group['foreach'] is None and not group['differentiable']
    return open_to_it and all(p.is_floating_point() and not has_gaps(p) for p in group['params'])


def start_momentum(optimizer: Optimizer) -> None:
    """Zeros for fused SGD: a first step that is skipped would leave memory without content, and a late parameter an error."""
    for group in optimizer.param_groups:
        if group.get('fused') and group.get('momentum'):
            for p in group['params']:
                if p.grad is not None and optimizer.state[p].get('momentum_buffer') is None:
                    optimizer.state[p]['momentum_buffer'] = torch.zeros_like(p)


def same_order(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one shape lie in memory in the same order; the stride of an axis of length 1 means nothing."""
    return all(n == 1 or s == t for n, s, t in zip(a.shape, a.stride(), b.stride(), strict=True))


def has_gaps(p: Tensor) -> bool:
    """Whether ``p`` is no block of memory: what is made like it lies in another order. One without a shape yet has no gaps."""
    return not is_lazy(p) and not same_order(p, torch.empty_like(p, device='meta'))


@torch.no_grad()
def match_layouts(optimizer: Optimizer) -> None:
    """State from a file in the order of its parameter (channels_last or not): fused kernels walk both as flat memory."""
    for p, state in optimizer.state.items():
        for name, x in state.items():
            if isinstance(x, Tensor) and x.shape == p.shape and not same_order(p, x):
                state[name] = torch.empty_like(p, dtype=x.dtype).copy_(x)


def as_built(saved: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """A saved state whose groups say ``fused`` and ``foreach`` as ``optimizer`` does: it decides where the counts of steps lie."""
    groups = [
        {**group, **{word: own[word] for word in ('fused', 'foreach') if word in own}}
        for group, own in zip(saved['param_groups'], optimizer.param_groups, strict=False)
    ]
    return {**saved, 'param_groups': [*groups, *saved['param_groups'][len(groups) :]]}
