"""Projectors and predictors."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkernel.checks import check_numbers
from mmkernel.models.joint_embedding import require_width
from mmkernel.models.norms import build_norm
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
    """

    def __init__(
        self,
        dims: tuple[int, ...],
        in_dim: int | None = None,
        norm: str | dict | None = 'BN',
        last_norm: str | dict | None = None,
        bias: bool = True,
        last_bias: bool = False,
    ) -> None:
        check_numbers('MLPNeck', whole=True, several=True, dims=dims)
        require_width(self, in_dim)
        layers: list[nn.Module | None] = []
        widths = [in_dim, *dims]
        for width, following in zip(widths[:-2], dims[:-1], strict=True):
            layers += [Linear(width, following, bias=bias), build_norm(norm, following), nn.ReLU()]
        layers += [Linear(widths[-2], dims[-1], bias=last_bias), build_norm(last_norm, dims[-1])]
        super().__init__(*(layer for layer in layers if layer is not None))
        self.takes_views = True
        self.out_dim = dims[-1]

    def forward(self, h: Tensor) -> Tensor:
        for layer in self:
            whole = h.ndim == 2 or isinstance(layer, (nn.Linear, nn.ReLU))
            h = layer(h) if whole else torch.stack([layer(view) for view in h])
        return h


@MODELS.register_module()
class IdentityNeck(nn.Identity):
    """z = h: the objective acts on the features themselves."""

    def __init__(self, in_dim: int | None = None) -> None:
        super().__init__()
        self.out_dim = in_dim
