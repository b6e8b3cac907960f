"""How far two views of an image lie apart, and Wang & Isola's two words for it (ICML 2020)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkernel.kernels.energy import mean_chord, refuse_second_derivative
from mmkernel.kernels.sphere import Pairs, add_chord_gradients_, inverse_norms, squared_chords

REDUCTIONS = ('sample', 'element')


def squared_distance(x: Tensor, y: Tensor, reduction: str = 'sample') -> Tensor:
    """'sample': mean_i ||x_i - y_i||^2;  'element': that divided by q, as most published code has it.

    ``x``, ``y``: (..., q), any points of R^q. Returns a scalar over this rank's rows.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is 'sample' (mean of ||x-y||^2) or 'element' (that over q), got {reduction!r}.")
    mean = F.mse_loss(x, y)
    return mean if reduction == 'element' else mean * x.shape[-1]


def alignment(x: Tensor, y: Tensor, exponent: float = 2.0, normalize: bool = False) -> Tensor:
    """mean_i ||x_i - y_i||^exponent of (B, q) points on the sphere (``normalize``: of raw rows)."""
    if normalize:
        x, y = F.normalize(x, dim=-1), F.normalize(y, dim=-1)
    return (x - y).norm(dim=-1).pow(exponent).mean()


def uniformity(z: Tensor, scale: float = 2.0, normalize: bool = False) -> Tensor:
    """log mean_{i<j} exp(-scale ||z_i - z_j||^2) of (B, q) points on the sphere (``normalize``: of raw rows).

    The logarithm of the U-statistic of ``RBFKernel(scale)``; on normalised rows ``kernel_energy`` gives the same value
    over all ranks and with its own backward.
    """
    if normalize:
        z = F.normalize(z, dim=-1)
    if z.shape[0] < 2:
        raise ValueError(f'Uniformity is a statistic of pairs: expected at least 2 rows, got {z.shape[0]}.')
    return torch.pdist(z).pow(2).mul(-scale).exp().mean().log()


def paired_distance(x: Tensor, y: Tensor, pairs: Pairs) -> Tensor:
    """mean over pairs (i, j) of mean_n ||x^_in - y^_jn||^2, rows normalised here, over the rows of all ranks.

    ``x``: (V, B, q), ``y``: (G, B, q) raw rows. Of the normalised rows only their norms and distances are kept for backward.
    Raises where there is no pair, and under create_graph=True.
    """
    if not pairs:
        raise ValueError(
            'No pair of views to align: a batch needs at least two views. Check the views of the data config.'
        )
    return _PairedDistance.apply(x, y, pairs)


class _PairedDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, pairs: Pairs) -> Tensor:
        r, s = inverse_norms(x), inverse_norms(y)
        d2 = squared_chords(x, y, r, s, pairs)
        ctx.pairs = pairs
        ctx.save_for_backward(x, y, r, s, d2)
        return mean_chord(d2)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative('paired_distance')
        x, y, r, s, d2 = ctx.saved_tensors
        gradients = tuple(
            torch.zeros_like(z, memory_format=torch.contiguous_format) if needed else None
            for z, needed in zip((x, y), ctx.needs_input_grad, strict=False)
        )
        add_chord_gradients_((x, y), (r, s), d2, ctx.pairs, upstream / d2.numel(), gradients)
        return *gradients, None
