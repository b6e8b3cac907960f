"""-log of the softmax probability of the positive among candidates, as pure functions of embeddings.

Shapes: V online views, G target views, B local rows, N rows of all ranks, q width, K queue rows. Rows are raw: they are
normalised here. Values are those of the global batch; gradients as ``mmkernel.distributed`` rules.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkernel.distributed import gather_rows, gather_rows_with_gradient, global_mean, rank, world_size
from mmkernel.kernels.energy import mean_chord, refuse_second_derivative
from mmkernel.kernels.gram import Engine
from mmkernel.kernels.sphere import Pairs, add_chord_gradients_, inverse_norms, squared_chords
from mmkernel.losses.pairs import mean_over_pairs
from mmkernel.losses.softmax_sums import softmax_sum


def nt_xent(
    z: Tensor,
    temperature: float,
    pairs: Pairs | None = None,
    precision: str = 'auto',
    layout: str = 'auto',
    transport_dtype: str | None = None,
) -> Tensor:
    """mean_(i,j) mean_n [ logsumexp_{c != (i,n)} z_in.z_c / T - z_in.z_jn / T ], c over the V N rows of all views and ranks.

    Chen et al., ICML 2020; with more than two views the mean runs over the positives of each anchor.

    Args:
        z: (V, B, q).
        temperature: T > 0.
        pairs: (anchor view, positive view); None: all ordered pairs.
        precision, layout, transport_dtype: see ``mmkernel.kernels.gram.Engine``.
    """
    V, B, _ = z.shape
    if V * B * world_size() < 3:
        raise ValueError(
            f'{V} view(s) of {B * world_size()} image(s) leave an anchor without a negative; at least 2 images are needed. '
            'Raise train_dataloader.batch_size.'
        )
    pairs = [(i, j) for i in range(V) for j in range(V) if i != j] if pairs is None else pairs
    if not pairs:
        return mean_over_pairs([])
    engine = Engine(**Engine(precision, layout, transport_dtype).options(z, z.dtype))
    return _OthersAsNegatives.apply(z if z.dtype == torch.float64 else z.float(), temperature, pairs, engine)


class _OthersAsNegatives(torch.autograd.Function):
    """(1/N) sum_in w_i lse_in - mean_(i,j) mean_n cos_ijn / T, w_i the share of pairs with anchor i, cos = 1 - d^2 / 2."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, temperature: float, pairs: Pairs, engine: Engine) -> Tensor:
        ctx.options = temperature, pairs, engine
        with torch.autocast(z.device.type, enabled=False):
            r = inverse_norms(z)
            d2 = squared_chords(z, z, r, r, _once(pairs))
            total, ctx.gradient = _normalisers(z, r, *ctx.options, need_gradient=ctx.needs_input_grad[0])
            positives = (1 - mean_chord(d2).double() / 2) / temperature
        ctx.save_for_backward(z, r, d2)
        return (total / (z.shape[1] * world_size()) - positives).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative('nt_xent')
        z, r, d2 = ctx.saved_tensors
        temperature, pairs, _ = ctx.options
        with torch.autocast(z.device.type, enabled=False):
            gradient, ctx.gradient = ctx.gradient, None  # handed over; a second walk back makes a new one
            if gradient is None:
                gradient = _normalisers(z, r, *ctx.options)[1]
            # W (1/N) (1/T) of the log-sum-exps; d^2 / 2T of the positives, a mean over this rank's rows.
            scale = (upstream / (temperature * z.shape[1])).expand(len(z))
            factor = upstream / (2 * temperature * d2.numel())
            add_chord_gradients_((z, z), (r, r), d2, _once(pairs), factor, (gradient, gradient), scale)
        return gradient, None, None, None


def _normalisers(
    z: Tensor, r: Tensor, temperature: float, pairs: Pairs, engine: Engine, need_gradient: bool = True
) -> tuple[Tensor, Tensor | None]:
    V, B, q = z.shape
    gradient = torch.empty_like(z, memory_format=torch.contiguous_format) if need_gradient else None
    share = [sum(i == v for i, _ in pairs) / len(pairs) for v in range(V)]
    weights = torch.tensor(share, dtype=z.dtype, device=z.device).repeat_interleave(B)
    flat = None if gradient is None else gradient.view(V * B, q)
    return softmax_sum(z.reshape(V * B, q), r.flatten(), weights, temperature, engine, flat), gradient


def _once(pairs: Pairs) -> Pairs:
    """Without the mirror images, where every pair has one: the mean of a symmetric term is then the same."""
    return [(i, j) for i, j in pairs if i < j] if {(j, i) for i, j in pairs} == set(pairs) else pairs


def in_batch_info_nce(predicted: Tensor, target: Tensor, temperature: float, pairs: Pairs) -> Tensor:
    """mean_(i,j) mean_n [ logsumexp_m p_in.t_jm / T - p_in.t_jn / T ], m over the N rows of all ranks.

    van den Oord et al., 2018; Chen, Xie & He, ICCV 2021. ``predicted``: (V, B, q), ``target``: (G, B, q).
    """
    predicted, target = F.normalize(predicted, dim=-1), F.normalize(target, dim=-1)
    gather = gather_rows_with_gradient if target.requires_grad else gather_rows  # keys without a graph cost no backward
    keys = gather(target.transpose(0, 1))  # (N, G, q)
    if len(keys) < 2:
        raise ValueError(
            'A batch of 1 image has no negatives: at least 2 are needed. Raise train_dataloader.batch_size.'
        )
    positive = torch.arange(predicted.shape[1], device=predicted.device) + predicted.shape[1] * rank()
    losses = [F.cross_entropy(predicted[i] @ keys[:, j].T / temperature, positive) for i, j in pairs]
    return global_mean(mean_over_pairs(losses))


def queue_info_nce(predicted: Tensor, target: Tensor, queue: Tensor, temperature: float, pairs: Pairs) -> Tensor:
    """mean_(i,j) mean_n [ log(e^{p_in.t_jn / T} + sum_k e^{p_in.c_jk / T}) - p_in.t_jn / T ], c_j the queue of target view j.

    He et al., CVPR 2020. ``predicted``: (V, B, q), ``target``: (G, B, q), ``queue``: (G, K, q) of unit rows.
    """
    predicted, target = F.normalize(predicted, dim=-1), F.normalize(target, dim=-1)
    losses = []
    for i, j in pairs:
        positive = (predicted[i] * target[j]).sum(-1, keepdim=True)  # (B, 1)
        logits = torch.cat([positive, predicted[i] @ queue[j].T], dim=1) / temperature  # (B, 1 + K)
        losses.append((logits.logsumexp(1) - logits[:, 0]).mean())
    return global_mean(mean_over_pairs(losses))
