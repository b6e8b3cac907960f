"""Parameter groups with learning rates of their own: by the number of axes, or by the part of the model."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from mmkernel.checks import check_numbers
from mmkernel.registry import OPTIM_WRAPPERS, OPTIMIZERS

KEYS = ('vector_lr_mult', 'vector_decay_mult')
# The options of a parameter group that mean the same to every optimizer, and what check_numbers allows them.
GROUP_NUMBERS = {
    'lr': dict(zero=True),
    'weight_decay': dict(zero=True),
    'momentum': dict(zero=True, most=1.0),
    'dampening': dict(zero=True, most=1.0),
    'betas': dict(zero=True, most=1.0),
    'alpha': dict(zero=True, most=1.0),
    'eps': dict(zero=True),
}


def check_groups(optimizer: Any) -> None:
    """ValueError for a learning rate, momentum, decay ... of a parameter group that is not finite or out of its range."""
    for group in optimizer.param_groups:
        for name, range_ in GROUP_NUMBERS.items():
            if name in group:
                value = group[name]
                check_numbers(type(optimizer).__name__, **range_, **{name: float(value) if name == 'lr' else value})


def check_custom_keys(optim_wrapper: Mapping, model: nn.Module) -> None:
    """ValueError for a key of ``custom_keys`` that is part of no parameter's name, or only of frozen ones.

    A constructor of the user's own may mean something else by its keys.
    """
    if optim_wrapper.get('constructor') not in (None, 'DefaultOptimWrapperConstructor'):
        return
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for key in (optim_wrapper.get('paramwise_cfg') or {}).get('custom_keys') or {}:
        if not any(key in name for name in names):
            parts = sorted({part for name in names for part in prefixes(name)})
            near = difflib.get_close_matches(key, parts, n=3, cutoff=0.5)
            hint = (
                f'Did you mean {" or ".join(near)}?'
                if near
                else f'Parts: {", ".join(n for n, _ in model.named_children())}.'
            )
            raise ValueError(
                f"optim_wrapper.paramwise_cfg.custom_keys: '{key}' is in the name of no parameter that trains. {hint}"
            )


def prefixes(name: str) -> list[str]:
    """'a.b.c' -> ['a', 'a.b', 'a.b.c']."""
    parts = name.split('.')
    return ['.'.join(parts[:n]) for n in range(1, len(parts) + 1)]


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class VectorRateConstructor:
    """Biases and norm parameters (at most one axis) get lr * vector_lr_mult and weight_decay * vector_decay_mult.

    As Zbontar et al. (ICML 2021) train them. In a config: ``optim_wrapper=dict(constructor='VectorRateConstructor',
    paramwise_cfg=dict(vector_lr_mult=0.1))``. Learning-rate scaling and schedules act on both groups alike.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        self.optim_wrapper_cfg, self.paramwise_cfg = dict(optim_wrapper_cfg), dict(paramwise_cfg or {})
        unknown = sorted(set(self.paramwise_cfg) - set(KEYS))
        if unknown:
            raise ValueError(f'VectorRateConstructor: paramwise_cfg takes {", ".join(KEYS)}; got {", ".join(unknown)}.')

    def __call__(self, model: nn.Module) -> OptimWrapper:
        model = getattr(model, 'module', model)  # inside DistributedDataParallel
        optimizer = dict(self.optim_wrapper_cfg.pop('optimizer'))
        parameters = [p for p in model.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [dict(params=[p for p in parameters if p.ndim > 1])]
        vectors = dict(params=[p for p in parameters if p.ndim <= 1])
        for key, option in (('vector_lr_mult', 'lr'), ('vector_decay_mult', 'weight_decay')):
            if key in self.paramwise_cfg:
                if option not in optimizer:
                    raise ValueError(
                        f'VectorRateConstructor: {key} multiplies optim_wrapper.optimizer.{option}, which the config does not '
                        'give. Write it there.'
                    )
                vectors[option] = optimizer[option] * self.paramwise_cfg[key]
        groups = [group for group in (*groups, vectors) if group['params']]
        self.optim_wrapper_cfg.setdefault('type', 'OptimWrapper')
        return OPTIM_WRAPPERS.build(
            self.optim_wrapper_cfg, default_args=dict(optimizer=OPTIMIZERS.build(dict(params=groups, **optimizer)))
        )


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class PartRateConstructor:
    """Parameters below a prefix get the settings written for it; all others those of the optimizer.

    In a config: ``optimizer=dict(type='SGD', lr=5.0), constructor='PartRateConstructor',
    paramwise_cfg=dict(backbone=dict(lr=0.02))``: the head learns at 5, the backbone at 0.02. Frozen parameters are left
    out. Learning-rate scaling and schedules act on all groups alike.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        self.optim_wrapper_cfg, self.parts = dict(optim_wrapper_cfg), dict(paramwise_cfg or {})

    def __call__(self, model: nn.Module) -> OptimWrapper:
        model = getattr(model, 'module', model)  # inside DistributedDataParallel
        optimizer = dict(self.optim_wrapper_cfg.pop('optimizer'))
        groups: dict[str, dict[str, Any]] = {'': dict(params=[])}
        groups |= {part: dict(settings, params=[]) for part, settings in self.parts.items()}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                part = next((part for part in self.parts if f'{name}.'.startswith(f'{part}.')), '')
                groups[part]['params'].append(parameter)
        for part in self.parts:
            if not groups[part]['params']:
                known = ', '.join(name for name, _ in model.named_children())
                raise ValueError(
                    f"PartRateConstructor: no parameter that trains lies below '{part}' (frozen?). Parts: {known}."
                )
        self.optim_wrapper_cfg.setdefault('type', 'OptimWrapper')
        filled = [group for group in groups.values() if group['params']]
        return OPTIM_WRAPPERS.build(
            self.optim_wrapper_cfg, default_args=dict(optimizer=OPTIMIZERS.build(dict(params=filled, **optimizer)))
        )
