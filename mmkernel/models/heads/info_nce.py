"""InfoNCE: find the positive among negatives of the batch or of a queue."""

import torch
from torch import Tensor, nn

from mmkernel.checks import check_numbers, check_words
from mmkernel.distributed import gather_rows
from mmkernel.kernels.engine import Engine
from mmkernel.kernels.sphere import unit_rows
from mmkernel.losses.contrastive import in_batch_info_nce, nt_xent, queue_info_nce
from mmkernel.models.embeddings import Embeddings
from mmkernel.models.heads.head import Head, weighted
from mmkernel.models.joint_embedding import require_width
from mmkernel.registry import MODELS


@MODELS.register_module()
class InfoNCEHead(Head):
    """weight * mean over anchors of -log softmax(similarities / temperature) at the positive; rows are normalised here.

    Args:
        temperature: T.
        weight: of the whole; 4 T for the sum over two directions times 2 T of Chen, Xie & He, ICCV 2021.
        negatives: 'views': all other online rows of the global batch (Chen et al., ICML 2020); the anchors are online rows.
            'targets': the other rows of the same target view (Chen, Xie & He, ICCV 2021); 'queue': rows of earlier target
            views (He et al., CVPR 2020). In these two the anchors are predictions.
        queue: a FeatureQueue or its config; its width is filled in. After a step it takes the target rows of the step's
            last batch.
        precision, layout, transport_dtype: how the matrix of logits is made under negatives='views'; see
            ``mmkernel.kernels.engine.Engine``.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        weight: float = 1.0,
        negatives: str = 'views',
        queue: nn.Module | dict | None = None,
        in_dim: int | None = None,
        precision: str = 'auto',
        layout: str = 'auto',
        transport_dtype: str | None = None,
    ) -> None:
        super().__init__()
        check_words('InfoNCEHead', negatives=(negatives, ('views', 'targets', 'queue')))
        check_numbers('InfoNCEHead', temperature=temperature, weight=weight)
        if (queue is not None) != (negatives == 'queue'):
            raise ValueError(
                f"got negatives={negatives!r}, queue={queue}; a queue goes with negatives='queue': write "
                "negatives='queue', queue=dict(type='FeatureQueue', length=...)."
            )
        self.engine = Engine(precision, layout, transport_dtype)
        if negatives != 'views' and self.engine != Engine():
            raise ValueError(f"precision, layout and transport_dtype go with negatives='views', got {negatives!r}.")
        self.temperature, self.weight, self.negatives = temperature, weight, negatives
        if isinstance(queue, dict):
            queue = MODELS.build({**queue, 'dim': queue.get('dim') or require_width(self, in_dim)})
        self.queue, self._staged = queue, None

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        return weighted(contrastive=(self.weight, self._value(embeddings)))

    def _value(self, embeddings: Embeddings) -> Tensor:
        predicted, target, pairs = embeddings.predicted, embeddings.target, embeddings.pairs
        if self.negatives == 'views':
            missing = set(embeddings.target_views) - set(embeddings.online_views)
            if missing:
                raise ValueError(
                    f"negatives='views' compares online rows, but the target views {sorted(missing)} are not among the online "
                    f"views {embeddings.online_views}. Add them to online_views, or use negatives='targets'."
                )
            pairs = [(i, embeddings.online_views.index(embeddings.target_views[j])) for i, j in pairs]
            options = self.engine.options(embeddings.online, embeddings.computed_in)
            return nt_xent(embeddings.online, self.temperature, pairs, **options)
        if self.negatives == 'targets':
            return in_batch_info_nce(predicted, target, self.temperature, pairs)
        self.queue.check(*target.shape)
        if self.expect_commit():
            self._staged = gather_rows(target.transpose(0, 1)).transpose(0, 1)  # (G, N, q)
        negatives = self.queue.rows.to(target.dtype, copy=True)  # for backward: commit may come before it
        return queue_info_nce(predicted, target, negatives, self.temperature, pairs)

    @torch.no_grad()
    def commit(self, real: Tensor | None = None) -> None:
        super().commit()
        if self._staged is not None:
            self.queue.enqueue(unit_rows(self._staged), real)
            self._staged = None
