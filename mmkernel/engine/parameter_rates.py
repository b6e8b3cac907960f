"""Two parameter groups: matrices and filters, and the parameters of one axis."""

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
