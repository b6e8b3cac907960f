"""Critics F(y, x): how well two embeddings go together. (K, q), (N, q) -> (K, N), rows y, columns x."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmkernel.checks import check_numbers
from mmkernel.kernels.layouts import rows_at_a_time
from mmkernel.kernels.sphere import unit_rows
from mmkernel.models.joint_embedding import require_width
from mmkernel.registry import MODELS


def _mlp(widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width, following in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(width, following), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


@MODELS.register_module()
class SeparableCritic(nn.Module):
    """F(y, x) = h(y).g(x) / temperature, with h and g two MLPs of widths ``dims``, the identity where ``dims`` is empty.

    van den Oord et al., 2018; costs K + N passes. ``normalize``: h and g are put on the sphere first. ``shared``: g = h.
    """

    def __init__(
        self,
        dims: tuple[int, ...] = (256, 64),
        in_dim: int | None = None,
        shared: bool = False,
        normalize: bool = False,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        require_width(self, in_dim)
        check_numbers('SeparableCritic', temperature=temperature)
        check_numbers('SeparableCritic', whole=True, dims=(in_dim, *dims))
        self.h = _mlp([in_dim, *dims])
        self.g = self.h if shared else _mlp([in_dim, *dims])
        self.normalize, self.temperature = normalize, temperature

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        y, x = self.h(y), self.g(x)
        if self.normalize:
            y, x = unit_rows(y), unit_rows(x)
        return y @ x.T / self.temperature


@MODELS.register_module()
class ConcatenatedCritic(nn.Module):
    """F(y, x) = MLP([y; x]) -> R, hidden widths ``dims``. Costs K N passes, made a block of rows at a time.

    The first layer is linear in y and x apart, so it runs on K + N rows and the pairs begin behind it. Where there are
    several blocks, backward makes each once more, so that no more than one block of pairs x width is ever in memory.
    """

    def __init__(self, dims: tuple[int, ...] = (256, 256), in_dim: int | None = None) -> None:
        super().__init__()
        require_width(self, in_dim)
        if not dims:
            raise ValueError('ConcatenatedCritic.dims needs at least one hidden width, got none.')
        check_numbers('ConcatenatedCritic', whole=True, several=True, dims=dims)
        self.first_y = nn.Linear(in_dim, dims[0])
        self.first_x = nn.Linear(in_dim, dims[0], bias=False)
        self.rest = nn.Sequential(nn.ReLU(inplace=True), _mlp([*dims, 1]))
        self.width = max(dims)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        y, x = self.first_y(y), self.first_x(x)
        blocks = y.split(rows_at_a_time(x.shape[0] * self.width, x))
        if len(blocks) == 1:
            return self._pairs(y, x)
        again = dict(use_reentrant=False, preserve_rng_state=False)  # nothing is drawn
        return torch.cat([checkpoint(self._pairs, block, x, **again) for block in blocks])

    def _pairs(self, y: Tensor, x: Tensor) -> Tensor:
        return self.rest(y[:, None] + x[None]).squeeze(-1)
