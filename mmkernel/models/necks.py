"""Projectors and predictors."""

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkernel.checks import check_numbers
from mmkernel.distributed import world_size
from mmkernel.distributed.shards import columns_of_all, rows_of_all, share_of, to_shards
from mmkernel.models.joint_embedding import require_width
from mmkernel.models.norms import build_norm
from mmkernel.models.sharded import norm_of_columns, spread
from mmkernel.registry import MODELS

_BLOCK = 2**25  # entries of a weight whose gradient is held in half precision at a time


class _HalfLinear(torch.autograd.Function):
    """y = x W' + b in half precision, (N, d) -> (N, q); of W nothing but W itself waits for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        x = x.to(dtype)
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight.to(dtype), None if bias is None else bias.to(dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x = gradient @ weight.to(gradient.dtype) if ctx.needs_input_grad[0] else None
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight, step = torch.empty_like(weight), max(1, _BLOCK // weight.shape[1])
            for part, columns in zip(of_weight.split(step), gradient.split(step, dim=1), strict=True):
                part.copy_(columns.T @ x)
        of_bias = gradient.sum(0).to(weight.dtype) if ctx.needs_input_grad[2] else None
        return of_x, of_weight, of_bias, None


class Linear(nn.Linear):
    """nn.Linear without the half-precision copies that autocast keeps of its weight, and of that one's gradient."""

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        half = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        if not half or self.weight.dtype != torch.float32:
            return super().forward(x)
        y = _HalfLinear.apply(x.flatten(0, -2), self.weight, self.bias, torch.get_autocast_dtype(kind))
        return y.unflatten(0, x.shape[:-1])  # a view made out here may be changed in place, one made inside may not


class ShardedLinear(Linear):
    """Some of the output features of a linear layer, those of ``share_of(out_features)``; other ranks have the others."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        self.whole, self.own = out_features, share_of(out_features)  # nn.Linear draws at once
        super().__init__(in_features, self.own.stop - self.own.start, bias=bias)
        spread(self, out_features)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """What nn.Linear would draw for the whole, a block at a time, of which this rank keeps its own: W ranks begin as one."""
        step, own = max(1, _BLOCK // self.in_features), self.own
        for start in range(0, self.whole, step):
            block = self.weight.new_empty(min(step, self.whole - start), self.in_features)
            nn.init.kaiming_uniform_(block, a=math.sqrt(5))
            first, last = max(start, own.start), min(start + len(block), own.stop)
            if first < last:
                self.weight[first - own.start : last - own.start] = block[first - start : last - start]
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features)
            self.bias.copy_(self.bias.new_empty(self.whole).uniform_(-bound, bound)[own])


@MODELS.register_module()
class MLPNeck(nn.Sequential):
    """z = W_k relu(norm(... relu(norm(W_1 h)))): (B, in_dim) -> (B, dims[-1]), or (V, B, in_dim) -> (V, B, dims[-1]).

    Of several views each norm sees one after the other, and keeps its statistics to one; the products take all at once.

    Args:
        dims: widths of the layers, the embedding width q last.
        in_dim: width of the input; None takes the backbone's.
        norm: after each hidden layer, before the ReLU; see ``build_norm``.
        last_norm: after the last layer.
        bias: of the hidden layers.
        last_bias: of the last layer.
        sharded: each of W ranks holds q/W output features of the last layer, and z is its columns of the rows of all
            ranks, (V, B, in_dim) -> (V, N, q/W); see ``mmkernel.distributed.shards``. What stands between the last two layers
            sees the rows of all ranks, so batch statistics there are global. On one rank nothing changes. q that W does
            not divide: the last rank has fewer; ValueError where it has none. 2: so is the layer before the last, with its
            norm; the columns of all ranks come together before the last layer.
    """

    def __init__(
        self,
        dims: tuple[int, ...],
        in_dim: int | None = None,
        norm: str | dict | None = 'BN',
        last_norm: str | dict | None = None,
        bias: bool = True,
        last_bias: bool = False,
        sharded: bool | int = False,
    ) -> None:
        check_numbers('MLPNeck', whole=True, several=True, dims=dims)
        if sharded not in (False, True, 2) or sharded > len(dims):
            raise ValueError(
                f'MLPNeck: sharded is False, True (the last layer) or 2 (the last two), and there are {len(dims)} layers, '
                f'dims={dims}; got {sharded!r}.'
            )
        require_width(self, in_dim)
        layers: list[nn.Module | None] = []
        for left, (width, following) in zip(range(len(dims))[::-1], pairwise([in_dim, *dims]), strict=True):
            apart = left < sharded
            layers.append((ShardedLinear if apart else Linear)(width, following, bias=bias if left else last_bias))
            word, kind = ('norm', norm) if left else ('last_norm', last_norm)
            layers.append(norm_of_columns(kind, following, word) if apart else build_norm(kind, following))
            layers.append(nn.ReLU() if left else None)
        super().__init__(*(layer for layer in layers if layer is not None))
        self.takes_views = True
        self.out_dim, self.sharded, self.spread = dims[-1], sharded, sharded and world_size() > 1
        linear = [-1, *(i for i, layer in enumerate(self) if isinstance(layer, nn.Linear))]
        self._first, self._last = linear[-max(sharded, 1)], linear[-1]  # of the sharded layers
        self._gathers = linear[-max(sharded, 1) - 1] + 1

    def norms_of_all_rows(self) -> list[str]:
        """Names of the layers that see the rows of all ranks already: synchronised, they would see each W times."""
        seen = range(self._gathers, len(self)) if self.spread else ()
        return [str(i) for i in seen if not isinstance(self[i], nn.Linear)]

    def forward(self, h: Tensor) -> Tensor:
        for i, layer in enumerate(self):
            if self.spread and i == self._gathers:
                h = rows_of_all(h)
            if self.spread and i == self._first:
                h = to_shards(h)
            elif self.spread and i == self._last:
                h = columns_of_all(h, layer.in_features)
            whole = h.ndim == 2 or isinstance(layer, (nn.Linear, nn.ReLU))
            h = layer(h) if whole else torch.stack([layer(view) for view in h])
        return h


@MODELS.register_module()
class IdentityNeck(nn.Identity):
    """z = h: the objective acts on the features themselves."""

    def __init__(self, in_dim: int | None = None) -> None:
        super().__init__()
        self.out_dim = in_dim
