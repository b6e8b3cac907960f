"""Layer-wise adaptive rate scaling, in the form that the joint-embedding methods publish."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mmkernel.checks import check_numbers
from mmkernel.registry import OPTIMIZERS

# torch.optim.SGD(fused=True) on a CPU; older versions of torch take the foreach path
_HAS_FUSED = torch._C._dispatch_has_kernel_for_dispatch_key('aten::_fused_sgd_', 'CPU')
_CHUNK = 2**17  # entries whose update is held at a time: 512 KB stay in the cache


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

    Nothing of the model's size is allocated beside the momentum buffer. Float32 parameters on the CPU are read twice, once
    for the norms and once for the update; elsewhere the step is made of foreach kernels without synchronisation, and
    gradients are consumed: those of scaled parameters hold the update afterwards.
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
        check_numbers('LARS', zero=True, lr=lr, weight_decay=weight_decay, eps=eps)
        check_numbers('LARS', zero=True, most=1.0, momentum=momentum)
        check_numbers('LARS', trust_coefficient=trust_coefficient)
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
            for p in parameters:
                if 'momentum_buffer' not in self.state[p]:
                    # zeros_like keeps the strides of p, so channels_last weights stay on the fast path
                    self.state[p]['momentum_buffer'] = torch.zeros_like(p, memory_format=torch.preserve_format)
            in_one_pass = [p for p in parameters if _one_pass(p, p.grad, self.state[p]['momentum_buffer'])]
            self._descend_in_chunks(in_one_pass, group)
            together = set(in_one_pass)
            self._descend_by_foreach([p for p in parameters if p not in together], group)
        return loss

    def _descend_in_chunks(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """The step of float32 parameters on the CPU: gradients are left as they are."""
        weights = [p for p in parameters if _is_scaled(p, group)]
        factors = {}
        if weights:
            inside = group['weight_decay'] if group['norms'] == 'joint' else 0.0
            scratch = torch.empty(_CHUNK)
            norms = torch.tensor([_norms(p, p.grad, inside, scratch) for p in weights], dtype=torch.float64)
            ratio, decay = _ratio_and_decay(norms[:, 0], norms[:, 1], group)
            factors = dict(zip(weights, zip(ratio.tolist(), decay.tolist(), strict=True), strict=True))
        for p in parameters:
            ratio, decay = factors.get(p, (1.0, 0.0))
            torch._fused_sgd_(  # u <- momentum u + (1 - dampening) (g + decay p);  p <- p - lr u
                [p], [p.grad], [self.state[p]['momentum_buffer']],
                weight_decay=decay, momentum=group['momentum'], lr=group['lr'], dampening=1 - ratio,
                nesterov=False, maximize=False, is_first_step=False,
            )  # fmt: skip

    def _descend_by_foreach(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """The step of all other parameters, in place on the gradients."""
        if not parameters:
            return
        weights = [p for p in parameters if _is_scaled(p, group)]
        if weights:
            _scale_gradients(weights, [p.grad for p in weights], group)
        buffers = [self.state[p]['momentum_buffer'] for p in parameters]
        torch._foreach_mul_(buffers, group['momentum'])
        torch._foreach_add_(buffers, [p.grad for p in parameters])
        torch._foreach_add_(parameters, buffers, alpha=-group['lr'])


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


def _one_pass(p: Tensor, gradient: Tensor, momentum: Tensor) -> bool:
    """Whether the three can be walked as flat memory: float32 on the CPU, without gaps, in the same order of storage."""

    def order(x: Tensor) -> list[int]:  # the stride of an axis of length 1 means nothing
        return [stride for size, stride in zip(x.shape, x.stride(), strict=True) if size > 1]

    plain = all(
        x.device.type == 'cpu' and x.dtype == torch.float32 and x.layout == torch.strided
        for x in (p, gradient, momentum)
    )
    dense = _HAS_FUSED and plain and 1 + sum((n - 1) * s for n, s in zip(p.shape, p.stride(), strict=True)) == p.numel()
    return dense and order(p) == order(gradient) == order(momentum)


def _norms(p: Tensor, gradient: Tensor, decay: float, scratch: Tensor) -> tuple[float, float]:
    """||p|| and ||g + decay p||, chunk by chunk in the cache, chunks summed in double precision."""
    p, gradient = (x.detach().as_strided((x.numel(),), (1,)) for x in (p, gradient))
    of_weight = of_update = 0.0
    for x, g in zip(p.split(_CHUNK), gradient.split(_CHUNK), strict=True):
        update = torch.add(g, x, alpha=decay, out=scratch[: len(x)]) if decay else g
        of_weight += torch.dot(x, x).item()
        of_update += torch.dot(update, update).item()
    return of_weight**0.5, of_update**0.5
