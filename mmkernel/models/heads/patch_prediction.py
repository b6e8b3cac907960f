"""Contrastive predictive coding: later patches of a grid predicted from earlier ones, and its masked context network."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkernel.checks import check_numbers
from mmkernel.losses.predictive_coding import DIRECTIONS, candidates, orient, own_positions, prediction_loss
from mmkernel.models.embeddings import Embeddings
from mmkernel.models.heads.head import Head, weighted
from mmkernel.models.joint_embedding import require_width
from mmkernel.registry import MODELS


@MODELS.register_module()
class PredictiveCodingHead(Head):
    """-mean log exp(z_{i+k,j}.W_k c_ij) / sum_z exp(z.W_k c_ij), over positions (i, j), steps k and directions.

    van den Oord et al., Representation learning with contrastive predictive coding, 2018; four directions: Henaff et al.,
    ICML 2020. The online views are the patches of a grid, row by row (``PatchView``); c_ij is the context network's output,
    which sees rows at or above i. Candidates z are all positions of all images of the global batch. Each direction has a
    context network of its own, which sees the side opposite to the predicted one. Logged: ``accuracy``, and the bound
    ``mutual_information`` = log N - L in nats, N being the number of candidates.

    Args:
        steps: k = 1 .. steps rows ahead.
        directions: of 'down', 'up', 'right', 'left'.
        context: config of the context network, (B, q, R, C) -> (B, c, R, C).
        grid: rows and columns of patches.
        in_dim: width q of the embeddings.
        scale: factor of the predictions, which are not normalised.
    """

    def __init__(
        self,
        steps: int = 5,
        directions: Sequence[str] = ('down',),
        context: dict[str, Any] | None = None,
        grid: tuple[int, int] = (7, 7),
        in_dim: int | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.in_dim = require_width(self, in_dim)
        check_numbers('PredictiveCodingHead', whole=True, steps=steps, grid=grid)
        check_numbers('PredictiveCodingHead', scale=scale)
        if not directions or not set(directions) <= set(DIRECTIONS) or len(set(directions)) < len(directions):
            raise ValueError(f'PredictiveCodingHead.directions are some of {DIRECTIONS}, got {tuple(directions)}.')
        for direction in directions:
            length = grid[0] if direction in ('down', 'up') else grid[1]
            if steps >= length:
                raise ValueError(
                    f'PredictiveCodingHead.steps = {steps}: a grid of {grid[0]} x {grid[1]} patches has {length - 1} steps '
                    f'to predict {direction}.'
                )
        self.steps, self.directions, self.grid, self.scale = steps, tuple(directions), tuple(grid), scale
        context = {'type': 'MaskedConvContext', **(context or {}), 'in_dim': in_dim}
        self.contexts = nn.ModuleList(MODELS.build(context) for _ in directions)
        self.predictors = nn.ModuleList(
            nn.ModuleList(nn.Linear(c.out_dim, in_dim, bias=False) for _ in range(steps)) for c in self.contexts
        )

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        z = self.as_grid(embeddings.online)  # (B, R, C, q)
        where = own_positions(z)
        predictions, positives = [], []
        for direction, context, predictors in zip(self.directions, self.contexts, self.predictors, strict=True):
            c = context(orient(z, direction).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # (B, R, C, c), turned
            for k, predictor in enumerate(predictors, 1):
                predictions.append(self.scale * predictor(c[:, :-k]))
                positives.append(orient(where, direction)[:, k:])
        loss, accuracy, information = prediction_loss(predictions, candidates(z), positives)
        return weighted(prediction=(1, loss)) | dict(accuracy=accuracy, mutual_information=information)

    def as_grid(self, online: Tensor) -> Tensor:
        """(V, B, q), patches row by row -> (B, R, C, q)."""
        rows, columns = self.grid
        if online.shape[0] != rows * columns:
            raise ValueError(
                f'PredictiveCodingHead.grid = {rows} x {columns} expects {rows * columns} views, the batch has {online.shape[0]}: '
                'give the patches of the data config the same grid.'
            )
        return torch.movedim(online, 0, 1).unflatten(1, (rows, columns))


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
        check_numbers('MaskedConvContext', whole=True, in_dim=in_dim, dim=dim, blocks=blocks)
        self.blocks = nn.Sequential(*(MaskedBlock(in_dim, dim) for _ in range(blocks)))
        self.out_dim = in_dim

    def forward(self, z: Tensor) -> Tensor:
        return F.relu(self.blocks(z))
