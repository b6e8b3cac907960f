"""Column statistics of views over the rows of all ranks, with gradients for functions of inner products of rows.

Such a function f(x) of centred rows x has a gradient whose columns have mean 0, so the means themselves need none.

Shapes: V views, B local rows, N = B W rows of all ranks, q width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmkernel.distributed import check_equal_rows, mean_over_ranks_, sum_over_ranks_, world_size
from mmkernel.kernels.products import refuse_second_derivative


def centred(z: Tensor) -> Tensor:
    """z less its column means: (V, B, q) -> (V, B, q). Raises for N < 2, and where the ranks' B differ."""
    N = z.shape[1] * world_size()
    if N < 2:
        raise ValueError(
            f'A batch of {N} image has no variance; at least 2 are needed. Raise train_dataloader.batch_size.'
        )
    check_equal_rows(z.shape[1])
    return z - mean_over_ranks_(z.detach().mean(1, keepdim=True))


def column_variances(x: Tensor, divisor: int) -> Tensor:
    """sum_n x_nj^2 / divisor of centred rows: (V, B, q) -> (V, q)."""
    return _ColumnVariances.apply(x, divisor)


def standardised(z: Tensor, eps: float) -> Tensor:
    """(z - mean) / sqrt(var + eps) per column, var with divisor N: batch normalisation without affine parameters."""
    return _Standardised.apply(z, eps)


class _ColumnVariances(torch.autograd.Function):
    """As x.square().sum(1) / divisor, whose backward makes three copies of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, divisor: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.divisor = divisor
        return _mean_squares(x) * (x.shape[1] * world_size() / divisor)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        refuse_second_derivative()
        (x,) = ctx.saved_tensors
        return x * sum_over_ranks_(upstream * (2 / ctx.divisor))[:, None], None


class _Standardised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, eps: float) -> Tensor:
        x = centred(z)
        rstd = (_mean_squares(x)[:, None] + eps).fmod_(torch.inf).rsqrt()  # an overflow becomes NaN, not 0
        a = x * rstd  # not in place: torch.compile of torch 2.11 then loses the gradient of what is returned
        ctx.save_for_backward(a, rstd)
        return a

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        """rstd (g - mean(g) - a mean(g a)), of which mean(g) is 0 here."""
        refuse_second_derivative()
        a, rstd = ctx.saved_tensors
        along = mean_over_ranks_((g * a).mean(1, keepdim=True))
        return torch.addcmul(g, a, along, value=-1).mul_(rstd), None


def _mean_squares(x: Tensor) -> Tensor:
    """(V, q) means over the rows of all ranks of the squares of centred rows."""
    return mean_over_ranks_(x.square().mean(1))
