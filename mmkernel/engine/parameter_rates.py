"""Parameter groups with learning rates of their own: by the number of axes, or by the part of the model."""

from __future__ import annotations

from typing import Any

from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from mmkernel.registry import OPTIM_WRAPPERS, OPTIMIZERS

KEYS = ('vector_lr_mult', 'vector_decay_mult')


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
                vectors[option] = optimizer.get(option, 0.0) * self.paramwise_cfg[key]
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
