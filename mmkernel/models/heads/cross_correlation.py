"""The correlation matrix between two views, driven to the identity."""

from __future__ import annotations

from torch import Tensor

from mmkernel.checks import check_numbers
from mmkernel.kernels.engine import Engine
from mmkernel.losses.cross_correlation import correlation_terms
from mmkernel.losses.pairs import check_pairs
from mmkernel.models.embeddings import Embeddings
from mmkernel.models.heads.head import Head
from mmkernel.registry import MODELS


@MODELS.register_module()
class CrossCorrelationHead(Head):
    """scale * mean_pairs [ sum_i (C_ii - 1)^2 + off_diagonal_weight * sum_{i != j} C_ij^2 ],  C = x'y / N.

    Zbontar et al., Barlow Twins, ICML 2021. x and y are the two views, each standardised over the rows of all ranks
    (variance with divisor N, ``eps`` inside the square root: batch normalisation without affine parameters).

    The gradient is that of the union batch. The official code sums C over its W processes by an in-place reduction that
    autograd does not see, so its gradient is 1/W of this one: it matters for parameters that LARS does not adapt.

    ``precision``, ``layout``, ``transport_dtype``: of the products and of rows between ranks;
    ``mmkernel.kernels.engine.Engine``.
    """

    def __init__(
        self,
        off_diagonal_weight: float = 0.0051,
        scale: float = 1.0,
        eps: float = 1e-5,
        precision: str = 'auto',
        layout: str = 'auto',
        transport_dtype: str | None = None,
    ) -> None:
        super().__init__()
        check_numbers('CrossCorrelationHead', zero=True, off_diagonal_weight=off_diagonal_weight, eps=eps)
        check_numbers('CrossCorrelationHead', scale=scale)
        self.off_diagonal_weight, self.scale, self.eps = off_diagonal_weight, scale, eps
        self.engine = Engine(precision, layout, transport_dtype)

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        pairs = embeddings.symmetric_pairs()
        check_pairs(pairs, 'correlate')
        target = None if embeddings.target is embeddings.predicted else embeddings.target
        options = self.engine.options(embeddings.online, embeddings.computed_in)
        on_diagonal, off_diagonal = correlation_terms(embeddings.predicted, target, pairs, self.eps, **options)
        return {
            'loss_on_diagonal': self.scale * on_diagonal,
            'loss_off_diagonal': self.scale * self.off_diagonal_weight * off_diagonal,
            'on_diagonal': on_diagonal.detach(),
            'off_diagonal': off_diagonal.detach(),
        }
