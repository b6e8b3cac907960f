"""The optimizer LARS; steps that a flag on the device can skip, of LARS and torch's SGD, Adam and AdamW."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.sgd import sgd

from mmkernel.checks import check_numbers
from mmkernel.distributed import sum_over_ranks_
from mmkernel.distributed.shards import Shard
from mmkernel.registry import OPTIMIZERS


@OPTIMIZERS.register_module()
class LARS(Optimizer):
    """u <- momentum u + r (g + wd p);  p <- p - lr u;  r = trust_coefficient ||p|| / ||g + wd p||, 1 where a norm is 0.

    You, Gitman and Ginsburg, 2017 (arXiv 1708.03888), as Zbontar et al. (ICML 2021) and Bardes et al. (ICLR 2022) use it.
    Biases and norm parameters (at most one axis) get neither decay nor scaling: u <- momentum u + g.

    Args:
        norms: 'joint': the ratio above. 'separate': r = trust_coefficient ||p|| / (||g|| + wd ||p|| + eps), and a
            parameter of which a norm is 0 gets neither ratio nor decay; the LARC of NVIDIA's apex, as Caron et al.
            (NeurIPS 2020) use it with ``scale_all=True``.
        scale_all: biases and norm parameters are decayed and scaled like the others.
        clip: r <- min(r / lr, 1): the step is never longer than plain SGD's. In da Costa et al., JMLR 2022.
        eps: in the denominator of 'separate'.

    Nothing of the model's size is allocated beside the momentum buffer: gradients of scaled parameters hold r (g + wd p)
    afterwards. Where ``found_inf``, a 0-dim float tensor, is not 0, parameters and momentum keep their bits.
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
        check_numbers('LARS', zero=True, lr=lr, weight_decay=weight_decay, eps=eps)
        check_numbers('LARS', zero=True, most=1.0, momentum=momentum)
        check_numbers('LARS', trust_coefficient=trust_coefficient)
        if norms not in ('joint', 'separate'):
            raise ValueError(f"LARS.norms is 'joint' (||g + wd p||) or 'separate' (||g|| + wd ||p||), got {norms!r}.")
        settings = dict(lr=lr, momentum=momentum, weight_decay=weight_decay, trust_coefficient=trust_coefficient)
        super().__init__(params, dict(settings, norms=norms, scale_all=scale_all, clip=clip, eps=eps))
        self.register_load_state_dict_post_hook(match_layouts)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # of a checkpoint from before these options
            for name, value in self.defaults.items():
                group.setdefault(name, value)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        loss = None
        if closure is not None:  # as Lightning calls every optimizer
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group['params'] if p.grad is not None]
            if parameters and getattr(self, 'grad_scale', None) is not None:  # left to us by torch.amp.GradScaler
                torch._foreach_div_([p.grad for p in parameters], self.grad_scale)
            weights = [p for p in parameters if group['scale_all'] or p.ndim > 1]
            if weights := sorted(weights, key=lambda p: isinstance(p, Shard)):
                _scale_gradients(weights, [p.grad for p in weights], group)
            gradients = [p.grad if same_order(p, p.grad) else torch.empty_like(p).copy_(p.grad) for p in parameters]
            sgd(  # u <- momentum u + g;  p <- p - lr u, in one kernel, or nothing where found_inf says so
                parameters, gradients, [self._momentum(p) for p in parameters], fused=True,
                found_inf=getattr(self, 'found_inf', None), weight_decay=0.0, momentum=group['momentum'],
                lr=group['lr'], dampening=0.0, nesterov=False, maximize=False,
            )  # fmt: skip
        return loss

    def _momentum(self, p: Tensor) -> Tensor:
        """The buffer u of ``p``, at first zero, stored in the same order."""
        state = self.state[p]
        if 'momentum_buffer' not in state:
            if has_gaps(p):
                raise ValueError(f'LARS: a parameter of shape {tuple(p.shape)} has gaps in memory; use p.clone().')
            state['momentum_buffer'] = torch.zeros_like(p)
        return state['momentum_buffer']


def _scale_gradients(weights: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
    """g <- r (g + wd p), in place. Norms are those of whole tensors, also where this rank holds a shard."""
    wd, joint = group['weight_decay'], group['norms'] == 'joint'
    if joint and wd:
        torch._foreach_add_(gradients, weights, alpha=wd)
    # of p, and of g + wd p ('joint') or g
    p_norm, norm = torch.stack(torch._foreach_norm(weights + gradients)).view(2, -1)
    if shards := sum(isinstance(p, Shard) for p in weights):  # they stand last
        whole = sum_over_ranks_(torch.stack([p_norm[-shards:], norm[-shards:]]).square_()).sqrt_()
        p_norm, norm = (torch.cat([x[:-shards], own]) for x, own in zip((p_norm, norm), whole, strict=True))
    usable = (p_norm > 0) & (norm > 0)
    ratio = group['trust_coefficient'] * p_norm / (norm if joint else norm + wd * p_norm + group['eps'])
    ratio = torch.where(usable, ratio, 1.0)
    if group['clip']:
        ratio = torch.where(usable, (ratio / group['lr']).clamp(max=1), 1.0)  # lr = 0: infinite, so 1
    if not joint and wd:  # a parameter without a ratio has no decay either
        torch._foreach_addcmul_(gradients, weights, list((torch.full_like(p_norm, wd) * usable).unbind()))
    torch._foreach_mul_(gradients, list(ratio.unbind()))


def fuse(optimizer: Optimizer) -> bool:
    """Whether ``optimizer`` obeys ``found_inf``. torch's SGD, Adam and AdamW are fused for it unless the config says otherwise.

    SGD with dampening is not: its first step is another than the later ones, so momentum cannot begin at zero.
    """
    groups = optimizer.param_groups
    if type(optimizer) not in (SGD, Adam, AdamW):
        return bool(getattr(optimizer, '_step_supports_amp_scaling', False))
    if any(group.get('dampening') for group in groups):
        return False
    free = all(g['fused'] is None and g['foreach'] is None and not g['differentiable'] for g in groups)
    if free and all(p.is_floating_point() and not has_gaps(p) for group in groups for p in group['params']):
        for settings in (optimizer.defaults, *groups):
            settings['fused'] = True
        optimizer._step_supports_amp_scaling = True  # what the constructors set for fused=True
    optimizer.register_load_state_dict_post_hook(match_layouts)
    return all(group['fused'] for group in groups)


def step_where(real: Tensor, optimizer: Optimizer) -> None:
    """``optimizer.step()`` if the 0-dim bool ``real`` is set. The device decides; ``optimizer`` is one that ``fuse`` accepts."""
    # fused SGD: a first step that is skipped would leave memory without content. Schedules of momentum give Adam the word, too
    for group in optimizer.param_groups if isinstance(optimizer, SGD) else ():
        for p in group['params'] if group.get('fused') and group.get('momentum') else ():
            if p.grad is not None and optimizer.state[p].get('momentum_buffer') is None:
                optimizer.state[p]['momentum_buffer'] = torch.zeros_like(p)
    optimizer.found_inf = 1.0 - real.float()
    optimizer.step()
    del optimizer.found_inf


def same_order(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one shape have the same memory order; strides of axes of length 1 do not count."""
    return all(n == 1 or s == t for n, s, t in zip(a.shape, a.stride(), b.stride(), strict=True))


def has_gaps(p: Tensor) -> bool:
    """Whether ``p`` is not one dense block of memory, so that ``empty_like`` has other strides. False for lazy parameters."""
    return not is_lazy(p) and not same_order(p, torch.empty_like(p, device='meta'))


@torch.no_grad()
def match_layouts(optimizer: Optimizer) -> None:
    """Give loaded state the memory order of its parameter (channels_last or not): fused kernels read both as flat memory."""
    for p, state in optimizer.state.items():
        for name, x in state.items():
            if isinstance(x, Tensor) and x.shape == p.shape and not same_order(p, x):
                state[name] = torch.empty_like(p, dtype=x.dtype).copy_(x)


def as_built(saved: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """A saved state with ``fused`` and ``foreach`` of ``optimizer``: they decide on which device step counts are."""
    groups, own = [dict(group) for group in saved['param_groups']], optimizer.param_groups
    for group, ours in zip(groups, own, strict=False):
        group.update({word: ours[word] for word in ('fused', 'foreach') if word in ours})
    return {**saved, 'param_groups': groups}
