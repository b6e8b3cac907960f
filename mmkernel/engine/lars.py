"""Layer-wise adaptive rate scaling, in the form that the joint-embedding methods publish."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mmkernel.registry import OPTIMIZERS


@OPTIMIZERS.register_module()
class LARS(torch.optim.Optimizer):
    """u <- momentum u + r (g + wd p);  p <- p - lr u;  r = trust_coefficient ||p|| / ||g + wd p||, 1 where a norm is 0.

    You, Gitman and Ginsburg, 2017 (arXiv 1708.03888), as Zbontar et al. (ICML 2021) and Bardes et al. (ICLR 2022) use it.
    Biases and norm parameters (at most one axis) get neither decay nor scaling: u <- momentum u + g.
    Gradients are consumed: after ``step`` those of scaled parameters hold the update, so that nothing of the model's size
    is allocated beside the momentum buffer.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3,
    ) -> None:
        settings = dict(lr=lr, momentum=momentum, weight_decay=weight_decay, trust_coefficient=trust_coefficient)
        for name, value in settings.items():
            if value < 0:
                raise ValueError(f'LARS got {name}={value}; it must not be negative.')
        super().__init__(params, settings)

    @staticmethod
    def scaled(parameter: Tensor) -> bool:
        """Whether decay and the trust ratio apply: matrices and filters, not biases and norm parameters."""
        return parameter.ndim > 1

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group['params'] if p.grad is not None]
            weights = [p for p in parameters if self.scaled(p)]
            if weights:
                self._scale_gradients(weights, group['weight_decay'], group['trust_coefficient'])
            if parameters:
                self._descend(parameters, group['lr'], group['momentum'])
        return loss

    @staticmethod
    def _scale_gradients(weights: list[Tensor], weight_decay: float, trust_coefficient: float) -> None:
        """g <- r (g + wd p), in place."""
        gradients = [p.grad for p in weights]
        if weight_decay:
            torch._foreach_add_(gradients, weights, alpha=weight_decay)
        weight_norm = torch.stack(torch._foreach_norm(weights))
        update_norm = torch.stack(torch._foreach_norm(gradients))
        usable = (weight_norm > 0) & (update_norm > 0)
        ratio = torch.where(usable, trust_coefficient * weight_norm / update_norm, 1.0)
        torch._foreach_mul_(gradients, list(ratio.unbind()))

    def _descend(self, parameters: list[Tensor], lr: float, momentum: float) -> None:
        """u <- momentum u + g;  p <- p - lr u."""
        for p in parameters:
            if 'momentum_buffer' not in self.state[p]:
                # zeros_like keeps the strides of p, so channels_last weights stay on the fast path
                self.state[p]['momentum_buffer'] = torch.zeros_like(p, memory_format=torch.preserve_format)
        buffers = [self.state[p]['momentum_buffer'] for p in parameters]
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, [p.grad for p in parameters])
        torch._foreach_add_(parameters, buffers, alpha=-lr)
