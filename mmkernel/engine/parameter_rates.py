"""Parameter groups with learning rates of their own: by the number of axes, or by the part of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from mmkernel.checks import check_numbers, did_you_mean
from mmkernel.registry import OPTIM_WRAPPERS, OPTIMIZERS

KEYS = {'vector_lr_mult': 'lr', 'vector_decay_mult': 'weight_decay'}  # -> the option that it multiplies
# The options of a parameter group that mean the same to every optimizer, and the largest value of each.
GROUP_NUMBERS = dict(lr=None, weight_decay=None, eps=None, momentum=1.0, dampening=1.0, betas=1.0, alpha=1.0)


def check_groups(optimizer: Any) -> None:
    """ValueError for a learning rate, momentum, decay ... of a parameter group that is not finite or out of its range."""
    for group in optimizer.param_groups:
        for name in GROUP_NUMBERS.keys() & group.keys():
            value = float(group['lr']) if name == 'lr' else group[name]
            most = {} if GROUP_NUMBERS[name] is None else dict(most=GROUP_NUMBERS[name])
            check_numbers(type(optimizer).__name__, zero=True, **most, **{name: value})


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
            children = f'Parts: {", ".join(n for n, _ in model.named_children())}.'
            raise ValueError(
                f"optim_wrapper.paramwise_cfg.custom_keys: '{key}' is in the name of no parameter that trains. "
                f'{did_you_mean(key, parts, children)}'
            )


def prefixes(name: str) -> list[str]:
    """'a.b.c' -> ['a', 'a.b', 'a.b.c']."""
    parts = name.split('.')
    return ['.'.join(parts[:n]) for n in range(1, len(parts) + 1)]


class _GroupsConstructor:
    """What both share: their ``groups(model, parameters, optimizer)`` are dicts of ``params`` and options of their own."""

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        self.optim_wrapper_cfg, self.paramwise_cfg = dict(optim_wrapper_cfg), dict(paramwise_cfg or {})

    def __call__(self, model: nn.Module) -> OptimWrapper:
        model = getattr(model, 'module', model)  # inside DistributedDataParallel
        optimizer = dict(self.optim_wrapper_cfg.pop('optimizer'))
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        filled = [group for group in self.groups(model, parameters, optimizer) if group['params']]
        built = OPTIMIZERS.build(dict(params=filled, **optimizer))
        self.optim_wrapper_cfg.setdefault('type', 'OptimWrapper')
        return OPTIM_WRAPPERS.build(self.optim_wrapper_cfg, default_args=dict(optimizer=built))


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class VectorRateConstructor(_GroupsConstructor):
    """Biases and norm parameters (at most one axis) get lr * vector_lr_mult and weight_decay * vector_decay_mult.

    As Zbontar et al. (ICML 2021) train them. In a config: ``optim_wrapper=dict(constructor='VectorRateConstructor',
    paramwise_cfg=dict(vector_lr_mult=0.1))``. Learning-rate scaling and schedules act on both groups alike.
    """

    def groups(self, model: nn.Module, parameters: dict[str, nn.Parameter], optimizer: Mapping) -> list[dict]:
        if unknown := sorted(set(self.paramwise_cfg) - set(KEYS)):
            raise ValueError(f'VectorRateConstructor: paramwise_cfg takes {", ".join(KEYS)}; got {", ".join(unknown)}.')
        vectors: dict[str, Any] = dict(params=[p for p in parameters.values() if p.ndim <= 1])
        for key, factor in self.paramwise_cfg.items():
            if KEYS[key] not in optimizer:
                raise ValueError(
                    f'VectorRateConstructor: {key} multiplies optim_wrapper.optimizer.{KEYS[key]}, which the config does not '
                    'give. Write it there.'
                )
            vectors[KEYS[key]] = optimizer[KEYS[key]] * factor
        return [dict(params=[p for p in parameters.values() if p.ndim > 1]), vectors]


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class PartRateConstructor(_GroupsConstructor):
    """Parameters below a prefix get the settings written for it; all others those of the optimizer.

    In a config: ``optimizer=dict(type='SGD', lr=5.0), constructor='PartRateConstructor',
    paramwise_cfg=dict(backbone=dict(lr=0.02))``: the head learns at 5, the backbone at 0.02. Frozen parameters are left
    out. Learning-rate scaling and schedules act on all groups alike.
    """

    def groups(self, model: nn.Module, parameters: dict[str, nn.Parameter], optimizer: Mapping) -> list[dict]:
        groups = {'': dict(params=[])} | {part: dict(given, params=[]) for part, given in self.paramwise_cfg.items()}
        for name, parameter in parameters.items():
            part = next((part for part in self.paramwise_cfg if f'{name}.'.startswith(f'{part}.')), '')
            groups[part]['params'].append(parameter)
        for part in self.paramwise_cfg:
            if not groups[part]['params']:
                known = ', '.join(name for name, _ in model.named_children())
                raise ValueError(
                    f"PartRateConstructor: no parameter that trains lies below '{part}' (frozen?). Parts: {known}."
                )
        return [*groups.values()]
