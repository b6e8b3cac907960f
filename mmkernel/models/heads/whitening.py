"""Distance between views after whitening, so that they cannot collapse."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkernel.checks import check_numbers
from mmkernel.distributed import gather_rows_with_gradient, global_mean, rank
from mmkernel.losses.alignment import REDUCTIONS, squared_distance
from mmkernel.losses.whitening import METHODS, Whitened, draw_sub_batches, sub_batches, whiten_views
from mmkernel.models.embeddings import Embeddings
from mmkernel.models.heads.head import Head
from mmkernel.registry import MODELS

_WORDS = dict(method=METHODS, distance=('cosine', 'squared'), reduction=REDUCTIONS, statistics=('view', 'joint'))


@MODELS.register_module()
class WhiteningHead(Head):
    """mean over pairs and iterations of d(w_i, w_j),  w = W (z - mean) whitened,  d = 2 - 2 cos or ||.||^2.

    Ermolov et al., Whitening for self-supervised representation learning, ICML 2021. Without ``sub_batch_size`` the
    statistics are those of the rows of all ranks. With it they are **per process**: each rank whitens blocks of its own
    rows, and the loss is the mean over ranks, which one process on the union batch forms with other blocks.

    Args:
        method: how to whiten; ``mmkernel.losses.whitening.whitening_matrix`` has the formulas.
        sub_batch_size: rows per block, a divisor of the batch per process; one random permutation serves all views.
        iterations: permutations per step, averaged.
        shrinkage: share of the identity in the covariance.
        distance: 'cosine' is 2 - 2 cos (``reduction`` does not matter), 'squared' is ||w_i - w_j||^2.
        reduction: of 'squared': 'element' divides by q, 'sample' does not.
        statistics: 'view' whitens each view by itself, 'joint' the views together.
        seed: of the permutations, which follow from (seed, committed steps, rank) alone.

    ``jitter`` in the log is 0 unless a covariance was singular; ``condition`` is the largest condition number.
    """

    def __init__(
        self,
        method: str = 'cholesky',
        sub_batch_size: int | None = None,
        iterations: int = 1,
        shrinkage: float = 0.0,
        distance: str = 'cosine',
        reduction: str = 'element',
        statistics: str = 'view',
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in dict(method=method, distance=distance, reduction=reduction, statistics=statistics).items():
            if value not in _WORDS[name]:
                raise ValueError(f'WhiteningHead.{name} is one of {", ".join(map(repr, _WORDS[name]))}, got {value!r}.')
        check_numbers('WhiteningHead', zero=True, most=1.0, shrinkage=shrinkage)
        check_numbers('WhiteningHead', whole=True, none=True, iterations=iterations, sub_batch_size=sub_batch_size)
        if iterations > 1 and sub_batch_size is None:
            raise ValueError(
                f'WhiteningHead.iterations counts permutations into sub-batches, got {iterations} with '
                f'sub_batch_size = {sub_batch_size}. Set sub_batch_size, or leave iterations = 1.'
            )
        self.sub_batch_size, self.iterations, self.seed = sub_batch_size, iterations, seed
        self.whitening = dict(method=method, shrinkage=shrinkage, statistics=statistics)
        self.distance, self.reduction = distance, reduction
        self.register_buffer('steps', torch.zeros((), dtype=torch.int64))

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        pairs = embeddings.symmetric_pairs()
        if not pairs:
            raise ValueError('No pair of views to compare: a batch needs two. Check the views of the data config.')
        predicted = self.whiten(embeddings.predicted)
        target = predicted if embeddings.target is embeddings.predicted else self.whiten(embeddings.target)
        p, t = predicted.rows, target.rows  # (I, V, K, s, q), (I, G, K, s, q)
        distances = [self.distance_of(p[:, i], t[:, j]) for i, j in pairs]
        invariance = torch.stack(distances).mean()
        if self.sub_batch_size is not None:
            invariance = global_mean(invariance)
        return {
            'loss_invariance': invariance,
            'invariance': invariance.detach(),
            'jitter': global_mean(torch.maximum(predicted.jitter, target.jitter)),
            'condition': global_mean(torch.maximum(predicted.condition, target.condition)),
        }

    def whiten(self, z: Tensor) -> Whitened:
        """(V, B, q) -> whitened blocks (I, V, K, s, q) of this rank, or of all ranks without ``sub_batch_size``."""
        if self.sub_batch_size is None:
            return whiten_views(torch.stack([gather_rows_with_gradient(v) for v in z])[None, :, None], **self.whitening)
        return whiten_views(sub_batches(z, self.permutation(z.shape[1]).to(z.device)), **self.whitening)

    def permutation(self, rows: int) -> Tensor:
        """(I, K, s) indices of ``rows`` rows for this step and rank."""
        generator = torch.Generator().manual_seed((self.seed * 2**32 + int(self.steps)) * 2**12 + rank())
        return draw_sub_batches(rows, self.sub_batch_size, self.iterations, generator)

    def distance_of(self, x: Tensor, y: Tensor) -> Tensor:
        if self.distance == 'cosine':
            return 2 - 2 * F.cosine_similarity(x, y, dim=-1).mean()
        return squared_distance(x, y, self.reduction)

    def commit(self) -> None:
        self.steps += 1
