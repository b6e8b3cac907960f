"""Context networks over a grid of patch embeddings: what may be known where the next row is to be predicted."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mmkernel.models.joint_embedding import require_width
from mmkernel.registry import MODELS


class MaskedBlock(nn.Module):
    """x + conv1x1(relu(conv2x1(conv1x3(relu(conv1x1(x)))))), the 2x1 convolution seeing this row and the one above."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(in_dim, dim, 1)
        self.across = nn.Conv2d(dim, dim, (1, 3), padding=(0, 1))
        self.above = nn.Conv2d(dim, dim, (2, 1))
        self.expand = nn.Conv2d(dim, in_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.across(F.relu(self.reduce(x)))
        h = self.above(F.pad(h, (0, 0, 1, 0)))  # one row of zeros on top, none at the bottom
        return x + self.expand(F.relu(h))


@MODELS.register_module()
class MaskedConvContext(nn.Module):
    """c_ij from z at rows <= i: (B, q, R, C) -> (B, q, R, C), residual masked convolutions in the manner of PixelCNN.

    van den Oord et al., Conditional image generation with PixelCNN decoders, NeurIPS 2016; as a context network in
    Henaff et al., ICML 2020. Without normalisation, which would carry patches below into the context.

    Args:
        in_dim: width q of the embeddings, and of the context.
        dim: hidden channels.
        blocks: rows above that a context can see, and columns to each side.
    """

    def __init__(self, in_dim: int | None = None, dim: int = 256, blocks: int = 5) -> None:
        super().__init__()
        require_width(self, in_dim)
        if min(in_dim, dim, blocks) < 1:
            raise ValueError(f'MaskedConvContext needs in_dim, dim and blocks >= 1, got {in_dim}, {dim}, {blocks}.')
        self.blocks = nn.Sequential(*(MaskedBlock(in_dim, dim) for _ in range(blocks)))
        self.out_dim = in_dim

    def forward(self, z: Tensor) -> Tensor:
        return F.relu(self.blocks(z))
