"""Predict one view's soft prototype assignment from another view."""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkernel.checks import check_numbers
from mmkernel.distributed import gather_rows, global_mean
from mmkernel.kernels.sphere import unit_rows
from mmkernel.losses.clustering import sinkhorn, swapped_prediction
from mmkernel.models.embeddings import Embeddings
from mmkernel.models.heads.head import Head, weighted
from mmkernel.models.joint_embedding import require_width
from mmkernel.models.queue import FeatureQueue
from mmkernel.models.state import move
from mmkernel.registry import MODELS


@MODELS.register_module()
class SinkhornCodesHead(Head):
    """mean_pairs mean_n -codes(t_jn) . log softmax(c . p^_in / temperature), codes = sinkhorn over the global batch.

    Caron et al., NeurIPS 2020. Target views assign; every other view predicts. Prototypes c_k are unit vectors: they are
    normalised in place, without a graph, when built and after each real optimizer step.

    Args:
        num_prototypes: K.
        temperature: of the predictions.
        epsilon, iterations: of the assignment; see ``sinkhorn``.
        queue_length: rows of earlier batches per target view that join the assignment once ``QueueHook`` has enabled the
            queue and it is full; of all ranks, a multiple of the global batch. 0: no queue.
        queue_views: number of target views.
        in_dim: q; filled in.
    """

    def __init__(
        self,
        num_prototypes: int = 3000,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
        queue_length: int = 0,
        queue_views: int = 2,
        in_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.in_dim = require_width(self, in_dim)
        check_numbers('SinkhornCodesHead', temperature=temperature, epsilon=epsilon)
        check_numbers('SinkhornCodesHead', whole=True, iterations=iterations, queue_views=queue_views)
        check_numbers('SinkhornCodesHead', whole=True, least=2, num_prototypes=num_prototypes)
        check_numbers('SinkhornCodesHead', whole=True, zero=True, queue_length=queue_length)
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.prototypes = nn.Linear(in_dim, num_prototypes, bias=False)  # weight: (K, q)
        self.queue = FeatureQueue(queue_length, in_dim, queue_views, enabled=False) if queue_length else None
        if self.queue is not None:
            self.queue.option = 'queue_length'
        self._staged: Tensor | None = None
        self.normalize_prototypes()

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        weight = self.prototypes.weight
        weight = weight / weight.detach().norm(dim=1, keepdim=True)  # of length 1 already, unless weights were loaded
        predicted = unit_rows(embeddings.predicted)
        same = embeddings.target is embeddings.predicted
        target = predicted.detach() if same else unit_rows(embeddings.target.detach())
        if self.expect_commit() and self.queue is not None and self.queue.enabled:
            self._staged = gather_rows(target.transpose(0, 1)).transpose(0, 1)  # (G, N, q)
        scores = predicted @ weight.T  # (V, B, K)
        codes = self.codes(target, weight.detach(), scores.detach() if same else None)  # (G, B, K)
        return weighted(codes=(1, global_mean(swapped_prediction(scores, codes, self.temperature, embeddings.pairs))))

    @torch.no_grad()
    def codes(self, target: Tensor, weight: Tensor, scores: Tensor | None = None) -> Tensor:
        """Unit target rows (G, B, q), prototypes (K, q) -> codes (G, B, K) of this rank's rows.

        ``scores``: target @ weight.T where it is known.
        """
        rows = target
        if self.queue is not None and self.queue.enabled:
            self.queue.check(*target.shape)
            if self.queue.full:
                rows = torch.cat([self.queue.stripe().to(target.dtype), target], dim=1)  # (G, length / W + B, q)
        if scores is None or rows is not target:
            scores = rows @ weight.T
        return sinkhorn(scores, self.epsilon, self.iterations, last=target.shape[1])

    @torch.no_grad()
    def commit(self, real: Tensor | None = None) -> None:
        super().commit()
        self.normalize_prototypes(real)
        if self._staged is not None:
            self.queue.enqueue(self._staged, real)
            self._staged = None

    @torch.no_grad()
    def normalize_prototypes(self, real: Tensor | None = None) -> None:
        move(self.prototypes.weight, F.normalize(self.prototypes.weight, dim=1), real)

    def check_batch(self, rows: int) -> None:
        """Before training: a warning for more prototypes than rows. The queue checks itself."""
        K, length = self.prototypes.out_features, self.queue.length if self.queue else 0
        if K > rows + length:
            warnings.warn(
                f'{K} prototypes for {rows} rows of a batch and {length} of the queue: an assignment leaves most of them almost '
                'empty. Lower model.head.num_prototypes, or raise the batch or queue_length.',
                stacklevel=2,
            )
