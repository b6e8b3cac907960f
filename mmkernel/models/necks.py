"""Projectors and predictors."""

from __future__ import annotations

from torch import Tensor, nn

from mmkernel.checks import check_numbers
from mmkernel.models.joint_embedding import require_width
from mmkernel.models.norms import build_norm
from mmkernel.registry import MODELS


@MODELS.register_module()
class MLPNeck(nn.Sequential):
    """z = W_k relu(norm(... relu(norm(W_1 h)))): (B, in_dim) -> (B, dims[-1]).

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
        for i, (width, following) in enumerate(zip(widths, widths[1:], strict=False)):
            last = i == len(dims) - 1
            layers.append(nn.Linear(width, following, bias=last_bias if last else bias))
            layers.append(build_norm(last_norm if last else norm, following))
            layers.append(None if last else nn.ReLU(inplace=True))
        super().__init__(*(layer for layer in layers if layer is not None))
        self.out_dim = dims[-1]


@MODELS.register_module()
class IdentityNeck(nn.Identity):
    """z = h: the objective acts on the features themselves."""

    def __init__(self, in_dim: int | None = None) -> None:
        super().__init__()
        self.out_dim = in_dim

    def forward(self, h: Tensor) -> Tensor:
        return h
