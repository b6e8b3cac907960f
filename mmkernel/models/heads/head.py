"""What every head offers."""

from __future__ import annotations

from torch import Tensor, nn

from mmkernel.models.embeddings import Embeddings


class Head(nn.Module):
    """Embeddings -> named losses. A head of your own defines ``loss``.

    ``loss`` is pure. Keys that start with ``loss_`` are weighted and summed by the trainer; the other parts, unweighted and
    without gradient, are logged under plain words. Values are those of the global batch; gradients as
    ``mmkernel.distributed`` rules.
    """

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        raise NotImplementedError(
            f'{type(self).__name__} has no loss(embeddings): the one method that a head must define.'
        )

    def commit(self) -> None:
        """Once per real optimizer step: move what ``loss`` staged into buffers. Nothing is staged by default."""

    def forward(self, embeddings: Embeddings) -> dict[str, Tensor]:
        return self.loss(embeddings)
