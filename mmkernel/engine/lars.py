"""Layer-wise adaptive rate scaling, in the form that the joint-embedding methods publish."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from mmkernel.checks import check_numbers
from mmkernel.engine.fused import has_gaps, match_layouts, same_order
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

    Nothing of the model's size is allocated beside the momentum buffer. Gradients are consumed: those of scaled parameters hold
    r (g + wd p) afterwards. Nothing is read from the device. Where ``found_inf``, a 0-dim float tensor that the owner of the
    step sets, is not 0, parameters and momentum keep their bits (torch's contract for optimizers and loss scaling).
    """

    _step_supports_amp_scaling = True  # torch.amp.GradScaler: this optimizer looks at found_inf

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
        check_numbers('LARS', zero=True, lr=lr, weight_decay=weight_decay, eps=eps)
        check_numbers('LARS', zero=True, most=1.0, momentum=momentum)
        check_numbers('LARS', trust_coefficient=trust_coefficient)
        if norms not in ('joint', 'separate'):
            raise ValueError(
                f"LARS.norms is 'joint' (||g + wd p||) or 'separate' (||g|| + wd ||p|| + eps), got {norms!r}."
            )
        super().__init__(params, {**settings, 'norms': norms, 'scale_all': scale_all, 'clip': clip, 'eps': eps})
        self.register_load_state_dict_post_hook(match_layouts)

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
            weights = [p for p in parameters if _is_scaled(p, group)]
            if parameters and getattr(self, 'grad_scale', None) is not None:  # left to us by torch.amp.GradScaler
                torch._foreach_div_([p.grad for p in parameters], self.grad_scale)
            if weights:
                _scale_gradients(weights, [p.grad for p in weights], group)
            sgd(  # u <- momentum u + g;  p <- p - lr u, in one kernel, or nothing where found_inf says so
                parameters, [_in_order_of(p, p.grad) for p in parameters], [self._momentum(p) for p in parameters],
                fused=True, found_inf=getattr(self, 'found_inf', None), weight_decay=0.0, momentum=group['momentum'],
                lr=group['lr'], dampening=0.0, nesterov=False, maximize=False,
            )  # fmt: skip
        return loss

    def _momentum(self, p: Tensor) -> Tensor:
        """The buffer u of ``p``, at first zero, stored in the same order."""
        state = self.state[p]
        if 'momentum_buffer' not in state:
            if has_gaps(p):
                raise ValueError(
                    f'LARS: a parameter of shape {tuple(p.shape)} has gaps in memory; give it as p.clone().'
                )
            state['momentum_buffer'] = torch.zeros_like(p)
        return state['momentum_buffer']


def _scale_gradients(weights: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
    """g <- r (g + wd p), in place."""
    joint = group['norms'] == 'joint'
    weight_norm = torch.stack(torch._foreach_norm(weights))
    if joint and group['weight_decay']:
        torch._foreach_add_(gradients, weights, alpha=group['weight_decay'])
    ratio, decay = _ratio_and_decay(weight_norm, torch.stack(torch._foreach_norm(gradients)), group)
    if not joint and group['weight_decay']:
        torch._foreach_addcmul_(gradients, weights, list(decay.unbind()))
    torch._foreach_mul_(gradients, list(ratio.unbind()))


def _ratio_and_decay(weight_norm: Tensor, update_norm: Tensor, group: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """(r, wd) of each parameter from ||p|| and ||g + wd p|| ('joint') or ||g|| ('separate')."""
    usable = (weight_norm > 0) & (update_norm > 0)
    decay, denominator = torch.full_like(weight_norm, group['weight_decay']), update_norm
    if group['norms'] == 'separate':
        denominator = update_norm + group['weight_decay'] * weight_norm + group['eps']
        decay = decay * usable  # a parameter without a ratio has no decay either
    ratio = torch.where(usable, group['trust_coefficient'] * weight_norm / denominator, 1.0)
    if group['clip']:
        ratio = torch.where(usable, (ratio / group['lr']).clamp(max=1), 1.0)  # lr = 0: infinite, so 1
    return ratio, decay


def _is_scaled(p: Tensor, group: dict[str, Any]) -> bool:
    return group['scale_all'] or p.ndim > 1


def _in_order_of(p: Tensor, gradient: Tensor) -> Tensor:
    return gradient if same_order(p, gradient) else torch.empty_like(p).copy_(gradient)
