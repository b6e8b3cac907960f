"""What every head offers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmkernel.models.embeddings import Embeddings

PATIENCE = 256  # training losses without a commit that gradient accumulation may explain


class Head(nn.Module):
    """Embeddings -> named losses. A head of your own defines ``loss``.

    ``loss`` is pure. Keys that start with ``loss_`` are weighted and summed by the trainer; the other parts, unweighted and
    without gradient, are logged under plain words. Values are those of the global batch; gradients as
    ``mmkernel.distributed`` rules.

    In a training loop of your own a head is called like any other objective, and returns the sum of its ``loss_`` parts:

        loss = head(z1, z2)                                                  # as many views as there are, (B, q) each
        loss = head(z1, z2, predicted=(p1, p2), target=(t1.detach(), t2.detach()))
        loss.backward(); optimizer.step(); head.commit()
    """

    needs_sample_index = False  # whether ``loss`` reads which images of the data set these are
    in_dim: int | None = None  # q, where its parameters have that width
    _waiting = 0  # training losses since the last commit

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        raise NotImplementedError(
            f'{type(self).__name__} has no loss(embeddings): the one method that a head must define.'
        )

    def commit(self, real: Tensor | None = None) -> None:
        """Once per attempt at an optimizer step: move what ``loss`` staged into buffers. Nothing is staged by default.

        ``real``: 0-dim bool tensor, whether the step counts (None: it does); where it does not, buffers keep their bits
        (``mmkernel.models.move``), but what was staged is forgotten, and what the host counts is counted.
        """
        self._waiting = 0

    def forward(
        self,
        *views: Tensor | Embeddings,
        predicted: Tensor | Sequence[Tensor] | None = None,
        target: Tensor | Sequence[Tensor] | None = None,
        sample_index: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """V views, (B, q) each -> the scalar loss. Half precision is computed in float32, under autocast too.

        Args:
            views: embeddings of the V views of B images; one ``Embeddings`` instead returns the dict of ``loss``.
            predicted: predictor(view) of each view; None: the views themselves.
            target: what is to be predicted, for the first G <= V views: detached embeddings, or a momentum encoder's. One
                view and one target are two views of the images. None: the views themselves, with their gradient.
            sample_index: (B,) index of each image in the data set, for heads that remember images.

        Raises:
            ValueError: other shapes, a target without a view, or no pair of views where the objective needs one.
        """
        if len(views) == 1 and isinstance(views[0], Embeddings):
            return self._parts(views[0])
        if sample_index is None and self.needs_sample_index:
            raise ValueError(
                f'{type(self).__name__} remembers images by their index in the data set: call head(z1, z2, '
                'sample_index=index), index being (B,) integers that the data set gives with each image.'
            )
        with _no_autocast(views):
            parts = self._parts(Embeddings.of(views, predicted, target, sample_index))
        return sum(value for name, value in parts.items() if name.startswith('loss_'))

    def _parts(self, embeddings: Embeddings) -> dict[str, Tensor]:
        if self.in_dim not in (None, embeddings.width):
            raise ValueError(
                f'{type(self).__name__} was made for embeddings of width {self.in_dim}, got {tuple(embeddings.online.shape[1:])}: '
                f'make it with in_dim={embeddings.width}.'
            )
        with _no_autocast((embeddings.online,)):
            return self.loss(embeddings.promoted())

    def expect_commit(self) -> bool:
        """For ``loss`` of a head that ``commit`` changes: whether a step may follow, so that something is to be staged.

        Not in eval mode or under ``no_grad``. Warns once where nobody calls ``commit``.
        """
        training = self.training and torch.is_grad_enabled()
        if training:
            self._waiting += 1
            if self._waiting == PATIENCE + 1:
                warnings.warn(
                    f'{type(self).__name__} has made {PATIENCE + 1} training losses, and commit() was never called in '
                    'between: what it keeps from step to step (queue, prototypes, permutations) stays as it is. Call '
                    'head.commit() after each optimizer.step().',
                    stacklevel=3,
                )
        return training


def _no_autocast(views: Sequence[Tensor]) -> torch.autocast:
    """Objectives run in full precision whatever the encoder used."""
    device = views[0].device if len(views) and isinstance(views[0], Tensor) else torch.device('cpu')
    return torch.autocast(device.type, enabled=False)
