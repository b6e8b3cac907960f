"""Learning rates: scaled by the batch size, and groups of parameters with rates of their own."""

import math
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from mmkernel.checks import check_numbers, did_you_mean
from mmkernel.distributed.shards import is_spread
from mmkernel.engine.layer_decay import decay_layers, describe_layers
from mmkernel.registry import OPTIM_WRAPPERS, OPTIMIZERS, accepted_keywords

REFERENCE_BATCH = 256
KEYS = {'vector_lr_mult': 'lr', 'vector_decay_mult': 'weight_decay'}  # -> the option that it multiplies
# The options of a parameter group that mean the same to every optimizer, and the largest value of each.
GROUP_NUMBERS = dict(
    lr=math.inf, weight_decay=math.inf, eps=math.inf, momentum=1.0, dampening=1.0, betas=1.0, alpha=1.0
)


def effective_batch(batch: int, world_size: int = 1, accumulation: int = 1) -> int:
    """Images per optimizer step: batch per process x processes x accumulation."""
    return batch * world_size * accumulation


def micro_batches(virtual_batch: int, batch: int, world_size: int = 1, drop_last: bool = True) -> int:
    """k = virtual / (batch x W): micro-batches of a process in one step. ValueError if some may be smaller than others."""
    at_once = batch * world_size
    k, rest = divmod(virtual_batch, at_once)
    if rest or k < 1:
        near = ' or '.join(str(n * at_once) for n in (k, k + 1) if n)
        raise ValueError(
            f'train_cfg.virtual_batch = {virtual_batch} is not a multiple of batch_size x processes = {batch} x {world_size} = '
            f'{at_once}: use {near} (--cfg-options train_cfg.virtual_batch={max(k + (rest > 0), 1) * at_once}).'
        )
    if k > 1 and not drop_last:
        raise ValueError(
            'train_cfg.virtual_batch needs micro-batches of one size: --cfg-options train_dataloader.drop_last=True.'
        )
    return k


def lr_factor(rule: str | None, images: int) -> float:
    """n / 256 for 'linear' (Goyal et al., 2017), sqrt(n) for 'sqrt' (Krizhevsky, 2014), 1 for None."""
    factors = {None: 1.0, 'linear': images / REFERENCE_BATCH, 'sqrt': math.sqrt(images)}
    if rule not in factors:
        raise ValueError(
            f"lr_scaling='{rule}' is unknown; choose 'linear' (lr * n / 256), 'sqrt' (lr * sqrt(n)) or None."
        )
    return factors[rule]


def scale(groups: list[dict], rule: str | None, images: int) -> str:
    """Multiply the learning rates of parameter groups by ``lr_factor``; returns ``describe_scaling`` of the first."""
    text = describe_scaling(rule, groups[0]['lr'], images)
    for group in groups:
        group['lr'] *= lr_factor(rule, images)
    return text


def describe_scaling(rule: str | None, lr: float, images: int) -> str:
    """One line for log and dry run: the learning rate, and how it follows from the written one."""
    how = {'linear': f'{lr:g} x {images} / {REFERENCE_BATCH}', 'sqrt': f'{lr:g} x sqrt({images})'}.get(rule)
    scaled = f'{lr * lr_factor(rule, images):g}'
    return f'{scaled} = {how} (lr_scaling={rule!r})' if how else f'{scaled} (lr_scaling=None: as written)'


def describe_weights(model: nn.Module, width: int | None = None) -> list[tuple[str, str]]:
    """(place, value) of each weight of a squared distance, in both conventions: 'element' is divided by q, 'sample' is not."""
    q = width or getattr(getattr(model, 'neck', None), 'out_dim', None)
    lines = []
    for place, part in model.named_modules():
        reduction = getattr(part, 'reduction', None)
        if q and reduction in ('element', 'sample') and getattr(part, 'distance_weight', None):
            name, weight = part.distance_weight
            element, sample = (weight, weight / q) if reduction == 'element' else (weight * q, weight)
            text = f"{element:.5g} with 'element' = {sample:.5g} with 'sample' at q = {q} (reduction={reduction!r})"
            lines.append((f'{place}.{name}'.lstrip('.'), text))
    return lines


def built_wrapper(given: Any, model: nn.Module, virtual: bool = False) -> OptimWrapper:
    """The optim_wrapper of a config for ``model``, or one that is built already, with its settings checked.

    ``layer_decay`` in it: see ``decay_layers``. ``virtual``: its steps are virtual batches. ValueError for a key of no
    parameter, for a learning rate, momentum, decay ... of a group that is not in its range, and for a wrapper that cannot take
    a virtual batch.
    """
    if not isinstance(given, OptimWrapper):
        plain = getattr(model, 'module', model)
        decay, given = given.get('layer_decay'), {key: v for key, v in given.items() if key != 'layer_decay'}
        check_custom_keys(given, plain)
        given = build_optim_wrapper(model, given)
        if decay is not None:
            decay_layers(given.optimizer, plain, decay)
            print_log(f'Layer decay {describe_layers(plain, decay)}.', logger='current')
    if any(is_spread(p) for group in given.optimizer.param_groups for p in group['params']):
        given.take_parts()
    check_groups(given.optimizer)
    names, anything = accepted_keywords(given.update_params)
    if virtual and 'backward' not in names and not anything:
        raise ValueError(
            f'train_cfg.virtual_batch takes two passes, which {type(given).__name__} cannot: its update_params has no keyword '
            "'backward'. Set optim_wrapper.type='PretrainOptimWrapper', or leave virtual_batch out."
        )
    return given


def check_groups(optimizer: Any) -> None:
    """ValueError for a learning rate, momentum, decay ... of a parameter group that is not finite or out of its range."""
    for group in optimizer.param_groups:
        for name in GROUP_NUMBERS.keys() & group.keys():
            value = float(group['lr']) if name == 'lr' else group[name]
            check_numbers(type(optimizer).__name__, zero=True, most=GROUP_NUMBERS[name], **{name: value})


def check_custom_keys(optim_wrapper: Mapping, model: nn.Module) -> None:
    """ValueError for a key of ``custom_keys`` that is part of no parameter's name, or only of frozen ones."""
    if optim_wrapper.get('constructor') not in (None, 'DefaultOptimWrapperConstructor'):
        return  # keys of a user's own constructor may have another meaning
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for key in (optim_wrapper.get('paramwise_cfg') or {}).get('custom_keys') or {}:
        if not any(key in name for name in names):
            parts = sorted({part for name in names for part in prefixes(name)})
            text = f"optim_wrapper.paramwise_cfg.custom_keys: '{key}' is in the name of no parameter that trains."
            raise ValueError(f'{text} {did_you_mean(key, parts, _parts_of(model))}')


def _parts_of(model: nn.Module) -> str:
    return f'Parts: {", ".join(name for name, _ in model.named_children())}.'


def prefixes(name: str) -> list[str]:
    """'a.b.c' -> ['a', 'a.b', 'a.b.c']."""
    parts = name.split('.')
    return ['.'.join(parts[:n]) for n in range(1, len(parts) + 1)]


class _GroupsConstructor:
    """Builds an optimizer of groups. ``options(optimizer)``: {group: settings}; ``group_of``: the group of a parameter, or ''."""

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        self.optim_wrapper_cfg, self.paramwise_cfg = dict(optim_wrapper_cfg), dict(paramwise_cfg or {})

    def __call__(self, model: nn.Module) -> OptimWrapper:
        model = getattr(model, 'module', model)  # inside DistributedDataParallel
        optimizer = dict(self.optim_wrapper_cfg.pop('optimizer'))
        groups = {name: dict(own, params=[]) for name, own in {'': {}, **self.options(optimizer)}.items()}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                groups[self.group_of(name, parameter)]['params'].append(parameter)
        if empty := [name for name in self.paramwise_cfg if name in groups and not groups[name]['params']]:
            text = f"{type(self).__name__}: no parameter that trains lies below '{empty[0]}' (frozen?)."
            raise ValueError(f'{text} {_parts_of(model)}')
        built = OPTIMIZERS.build(dict(params=[group for group in groups.values() if group['params']], **optimizer))
        self.optim_wrapper_cfg.setdefault('type', 'OptimWrapper')
        return OPTIM_WRAPPERS.build(self.optim_wrapper_cfg, default_args=dict(optimizer=built))


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class VectorRateConstructor(_GroupsConstructor):
    """Biases and norm parameters (at most one axis) get lr * vector_lr_mult and weight_decay * vector_decay_mult.

    As Zbontar et al. (ICML 2021) train them. In a config: ``optim_wrapper=dict(constructor='VectorRateConstructor',
    paramwise_cfg=dict(vector_lr_mult=0.1))``.
    """

    def options(self, optimizer: Mapping) -> dict[str, dict]:
        given = {KEYS.get(key): key for key in self.paramwise_cfg}
        if not given.keys() <= optimizer.keys():
            got = f'got {", ".join(self.paramwise_cfg)} and {", ".join(optimizer)}'
            raise ValueError(
                f'VectorRateConstructor: paramwise_cfg takes {", ".join(KEYS)} of what the optimizer has; {got}.'
            )
        return {'vectors': {name: optimizer[name] * self.paramwise_cfg[key] for name, key in given.items()}}

    def group_of(self, name: str, parameter: nn.Parameter) -> str:
        return 'vectors' if parameter.ndim <= 1 else ''


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class PartRateConstructor(_GroupsConstructor):
    """Parameters below a prefix get the settings written for it; all others those of the optimizer.

    In a config: ``optimizer=dict(type='SGD', lr=5.0), constructor='PartRateConstructor',
    paramwise_cfg=dict(backbone=dict(lr=0.02))``: the head learns at 5, the backbone at 0.02.
    """

    def options(self, optimizer: Mapping) -> dict[str, dict]:
        return self.paramwise_cfg

    def group_of(self, name: str, parameter: nn.Parameter) -> str:
        return next((part for part in self.paramwise_cfg if f'{name}.'.startswith(f'{part}.')), '')
