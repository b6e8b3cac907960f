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

    Args:
        trust_coefficient: of the ratio r.
        norms: 'joint': the ratio above. 'separate': r = trust_coefficient ||p|| / (||g|| + wd ||p|| + eps), and a
            parameter of which a norm is 0 gets neither ratio nor decay; the LARC of NVIDIA's apex, as Caron et al.
            (NeurIPS 2020) use it with ``scale_all=True``.
        scale_all: biases and norm parameters are decayed and scaled like the others.
        clip: r <- min(r / lr, 1): the step is never longer than plain SGD's. In da Costa et al., JMLR 2022.
        eps: in the denominator of 'separate'.

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
        norms: str = 'joint',
        scale_all: bool = False,
        clip: bool = False,
        eps: float = 1e-8,
    ) -> None:
        settings = dict(lr=lr, momentum=momentum, weight_decay=weight_decay, trust_coefficient=trust_coefficient)
        for name, value in {**settings, 'eps': eps}.items():
            if value < 0:
                raise ValueError(f'LARS got {name}={value}; it must not be negative.')
        if norms not in ('joint', 'separate'):
            raise ValueError(
                f"LARS.norms is 'joint' (||g + wd p||) or 'separate' (||g|| + wd ||p|| + eps), got {norms!r}."
            )
        super().__init__(params, {**settings, 'norms': norms, 'scale_all': scale_all, 'clip': clip, 'eps': eps})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # of a checkpoint from before these options
            for name, value in self.defaults.items():
                group.setdefault(name, value)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group['params'] if p.grad is not None]
            weights = [p for p in parameters if group['scale_all'] or p.ndim > 1]
            if weights:
                self._scale_gradients(weights, group)
            if parameters:
                self._descend(parameters, group['lr'], group['momentum'])
        return loss

    @staticmethod
    def _scale_gradients(weights: list[Tensor], group: dict[str, Any]) -> None:
        """g <- r (g + wd p), in place."""
        gradients, decay = [p.grad for p in weights], group['weight_decay']
        weight_norm = torch.stack(torch._foreach_norm(weights))
        if group['norms'] == 'joint':
            if decay:
                torch._foreach_add_(gradients, weights, alpha=decay)
            update_norm = denominator = torch.stack(torch._foreach_norm(gradients))
        else:
            update_norm = torch.stack(torch._foreach_norm(gradients))
            denominator = update_norm + decay * weight_norm + group['eps']
        usable = (weight_norm > 0) & (update_norm > 0)
        ratio = torch.where(usable, group['trust_coefficient'] * weight_norm / denominator, 1.0)
        if group['clip']:
            ratio = torch.where(usable, (ratio / group['lr']).clamp(max=1), 1.0)  # lr = 0: infinite, so 1
        if group['norms'] == 'separate' and decay:  # a parameter without a ratio has no decay either
            torch._foreach_addcmul_(gradients, weights, list((decay * usable.to(weight_norm)).unbind()))
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
