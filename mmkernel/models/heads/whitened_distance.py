"""Distance between views after whitening, so that they cannot collapse."""

import torch
from torch import Tensor

from mmkernel.checks import check_numbers, check_words
from mmkernel.distributed import gather_rows_with_gradient, global_mean, max_over_ranks, rank
from mmkernel.losses.alignment import REDUCTIONS, compared_pairs
from mmkernel.losses.matrices import warn_of_jitter
from mmkernel.losses.whitening import METHODS, Whitened, draw_sub_batches, sub_batches, whiten_views, whitened_distance
from mmkernel.models.embeddings import Embeddings
from mmkernel.models.heads.head import Head, weighted
from mmkernel.models.state import LARGEST_SEED, HostCounters, generator_of, sent
from mmkernel.registry import MODELS


@MODELS.register_module()
class WhiteningHead(HostCounters, Head):
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

    ``jitter`` in the log is 0 unless a covariance was singular; every 100 steps one is copied, and 50 later ``commit`` warns.
    ``condition`` is the largest ratio of two pivots of a covariance, which is at most its condition number.
    """

    counters = ('steps',)

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
        words = dict(method=(method, METHODS), reduction=(reduction, REDUCTIONS))
        words |= dict(distance=(distance, ('cosine', 'squared')), statistics=(statistics, ('view', 'joint')))
        check_words('WhiteningHead', **words)
        check_numbers('WhiteningHead', zero=True, most=1.0, shrinkage=shrinkage)
        check_numbers('WhiteningHead', whole=True, none=True, iterations=iterations, sub_batch_size=sub_batch_size)
        check_numbers('WhiteningHead', whole=True, zero=True, most=LARGEST_SEED, seed=seed)
        if iterations > 1 and sub_batch_size is None:
            raise ValueError(
                f'WhiteningHead.iterations = {iterations} counts permutations into sub-batches: set sub_batch_size.'
            )
        self.sub_batch_size, self.iterations, self.seed = sub_batch_size, iterations, seed
        self.whitening = dict(method=method, shrinkage=shrinkage, statistics=statistics)
        self.distance, self.reduction, self.steps = distance, reduction, 0  # committed steps
        self.distance_weight = ('distance', 1.0) if distance == 'squared' else None
        self._last: tuple[Tensor, int] | None = None  # a jitter on its way to the host, and q

    def check_local_batch(self, rows: int) -> None:
        """Before training: ValueError if the rows of one process cannot be cut into sub-batches."""
        if self.sub_batch_size is not None:
            draw_sub_batches(rows, self.sub_batch_size, 1, torch.Generator())

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        pairs = compared_pairs(embeddings.predicted, embeddings.target, embeddings.pairs)
        if self.sub_batch_size is not None:
            self.expect_commit()
        predicted = self.whiten(embeddings.predicted)
        target = predicted if embeddings.target is embeddings.predicted else self.whiten(embeddings.target)
        invariance = whitened_distance(predicted.rows, target.rows, pairs, self.distance, self.reduction)
        found = torch.stack([predicted.jitter, predicted.pivots])
        if target is not predicted:
            found = found.maximum(torch.stack([target.jitter, target.pivots]))
        if self.sub_batch_size is not None:
            invariance, found = global_mean(invariance), max_over_ranks(found)
        if self.steps % 100 == 0:
            self._last = found[0].to('cpu', non_blocking=True), predicted.rows.shape[-1]
        return weighted(invariance=(1, invariance)) | dict(jitter=found[0], condition=found[1])

    def whiten(self, z: Tensor) -> Whitened:
        """(V, B, q) -> whitened blocks (I, V, K, s, q) of this rank, or of all ranks without ``sub_batch_size``."""
        if self.sub_batch_size is None:
            z = gather_rows_with_gradient(z.transpose(0, 1)).transpose(0, 1)  # (V, N, q)
            return whiten_views(z[None, :, None], **self.whitening)
        return whiten_views(sub_batches(z, sent(self.permutation(z.shape[1]), z.device)), **self.whitening)

    def permutation(self, rows: int) -> Tensor:
        """(I, K, s) indices of ``rows`` rows for this step and rank."""
        generator = generator_of(self.seed, self.steps, rank())
        return draw_sub_batches(rows, self.sub_batch_size, self.iterations, generator)

    def commit(self, real: Tensor | None = None) -> None:
        super().commit()
        if self._last is not None and self.steps % 100 == 50:  # no GPU is that far behind its host
            jitter, q = self._last
            warn_of_jitter(float(jitter), q, jitter.dtype)
        self.steps += 1
