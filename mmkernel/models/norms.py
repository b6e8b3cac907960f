"""Normalisation layers of embeddings by short name or config, and batch normalisation that decorrelates."""

from typing import Any

import torch
from torch import Tensor, nn

from mmkernel.checks import check_numbers
from mmkernel.kernels.layouts import promoted
from mmkernel.losses.matrices import inverse_square_root, inverse_square_root_newton
from mmkernel.models.state import LARGEST_SEED, HostCounters, generator_of, sent
from mmkernel.registry import MODELS

_SHORT = {'BN': nn.BatchNorm1d, 'LN': nn.LayerNorm}
for _name, _layer in _SHORT.items():
    MODELS.register_module(name=_name, module=_layer)  # lets the check of a config see their keywords


def build_norm(norm: str | dict | None, width: int) -> nn.Module | None:
    """None, 'BN', 'LN', or dict(type='BN', affine=False, ...) -> a layer for (B, ``width``) rows.

    A type other than the two short names is looked up in MODELS and gets the width as its first argument.
    """
    if norm is None:
        return None
    arguments = dict(type=norm) if isinstance(norm, str) else dict(norm)
    name = arguments.pop('type')
    return (_SHORT[name] if name in _SHORT else MODELS.get(name))(width, **arguments)


@MODELS.register_module()
class ScaledBN(nn.BatchNorm1d):
    """y = gamma (x - mean) / std: batch norm with a scale but no offset, at the end of a projector (Chen et al., ICML 2020)."""

    def __init__(self, num_features: int, **settings: Any) -> None:
        check_numbers('ScaledBN', whole=True, num_features=num_features)
        super().__init__(num_features, **settings)
        self.register_parameter('bias', None)


@MODELS.register_module()
class DBN(nn.Module):
    """y = S^-1/2 (x - mean) within each group of channels, S the covariance of the batch (divisor N): (N, q) -> (N, q).

    Huang et al., Decorrelated batch normalization, CVPR 2018; Hua et al., On feature decorrelation in self-supervised
    learning, ICCV 2021. No affine parameters. As in the authors' code there are no running statistics: eval mode too
    whitens by the batch at hand, so a row's output depends on its companions. Statistics are those of **one process**
    (SyncBN conversion does not touch this layer) and of one pass: with ``neck_batching='view'`` of one view.

    Args:
        num_features: q.
        groups: number of groups, a divisor of q; None takes the fewest whose width is at most half the rows.
        iterations: None for the exact root, or that many Newton-Schulz steps (Huang et al., CVPR 2019; 5 is usual).
        eps: added to the diagonal of S.
    """

    def __init__(
        self, num_features: int, groups: int | None = 16, iterations: int | None = None, eps: float = 1e-5
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if groups is not None and (groups < 1 or num_features % groups):
            raise ValueError(
                f'{name} cuts {num_features} channels into groups of one width, got groups = {groups}: choose a divisor.'
            )
        check_numbers(name, zero=True, eps=eps)
        check_numbers(name, whole=True, none=True, iterations=iterations)
        self.num_features, self.groups, self.iterations, self.eps = num_features, groups, iterations, eps

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.whiten(promoted(x)).to(x.dtype)

    def whiten(self, x: Tensor) -> Tensor:
        rows, q = x.shape
        groups = self.groups or next((g for g in range(1, q + 1) if q % g == 0 and 2 * (q // g) <= rows), q)
        if rows < 2 or (rows <= q // groups and self.eps <= 0):
            raise ValueError(
                f'{type(self).__name__} whitens groups of {q // groups} channels, got a batch of {rows} rows: it needs more rows '
                'than that. Raise the batch size or groups.'
            )
        centred = (x - x.mean(dim=0)).view(rows, groups, -1).transpose(0, 1)  # (G, N, q / G)
        identity = torch.eye(centred.shape[-1], dtype=x.dtype, device=x.device)
        S = torch.baddbmm(identity, centred.mT, centred, beta=self.eps, alpha=1 / rows)  # eps I + covariance
        root = inverse_square_root(S) if self.iterations is None else inverse_square_root_newton(S, self.iterations)
        return (centred @ root).transpose(0, 1).reshape(rows, -1)

    def extra_repr(self) -> str:
        return f'{self.num_features}, groups={self.groups}, iterations={self.iterations}, eps={self.eps:g}'


@MODELS.register_module()
class ShuffledDBN(HostCounters, DBN):
    """``DBN`` whose groups are drawn anew in each training pass, so that in time every pair of channels is decorrelated.

    Hua et al., ICCV 2021. Channels return to their places afterwards. The permutation follows from (seed, number of
    training passes), which is in the state dict: every rank draws the same one, and a resumed run continues the series. Eval mode
    keeps the permutation that comes next.
    """

    counters = ('passes',)

    def __init__(
        self,
        num_features: int,
        groups: int | None = 16,
        iterations: int | None = None,
        eps: float = 1e-5,
        seed: int = 0,
    ) -> None:
        super().__init__(num_features, groups, iterations, eps)
        check_numbers('ShuffledDBN', whole=True, zero=True, most=LARGEST_SEED, seed=seed)
        self.seed, self.passes = seed, 0

    def forward(self, x: Tensor) -> Tensor:
        order = torch.randperm(self.num_features, generator=generator_of(self.seed, self.passes))
        there, back = sent(torch.stack([order, order.argsort()]), x.device)
        if self.training:
            self.passes += 1
        return _Permuted.apply(super().forward(_Permuted.apply(x, there, back)), back, there)


class _Permuted(torch.autograd.Function):
    """x[:, there]; its gradient is a permutation too, where that of an index would be a sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(there, back)
        return x.index_select(1, there)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        there, back = ctx.saved_tensors
        return _Permuted.apply(upstream, back, there), None, None
