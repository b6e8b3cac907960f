"""Heads of second moments: variance and covariance within views, correlation between views."""

from torch import Tensor

from mmkernel.checks import check_numbers, check_words
from mmkernel.kernels.engine import Engine
from mmkernel.losses.alignment import ALIGNMENTS, REDUCTIONS, compared_pairs, invariance
from mmkernel.losses.covariance import correlation_terms, moment_terms
from mmkernel.models.embeddings import Embeddings
from mmkernel.models.heads.head import Head, weighted
from mmkernel.registry import MODELS


@MODELS.register_module()
class VarianceCovarianceHead(Head):
    """25 mean_pairs ||p_i - t_j||^2 / q + 25 mean_views hinge(std) + 1 * 2 mean_views sum_{i != j} C_ij^2 / q.

    Bardes, Ponce and LeCun, VICReg, ICLR 2022, as in the official code: the hinge is averaged over views, the covariance
    of two views is summed, its divisor and the variance's is N - 1 of the global batch. Embeddings are not normalised.
    With only the first weight, the plain squared distance that needs a norm at the end of the neck not to collapse
    (Hua et al., ICCV 2021). A term of weight 0 is logged, and costs no backward pass.

    Args:
        invariance_weight, variance_weight, covariance_weight: of the three terms.
        target_std: gamma, where the hinge ends.
        eps: added to the variance inside the square root.
        reduction: 'element' divides ||p - t||^2 by q, as the official code does; 'sample' does not (the paper's text).
        align: 'pairs' of views, or each view to the 'mean' of the target views.
        precision, layout, transport_dtype: of the products and of rows between ranks; ``mmkernel.kernels.engine.Engine``.
    """

    takes_columns = True

    def __init__(
        self,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
        target_std: float = 1.0,
        eps: float = 1e-4,
        reduction: str = 'element',
        precision: str = 'auto',
        layout: str = 'auto',
        transport_dtype: str | None = None,
        align: str = 'pairs',
    ) -> None:
        super().__init__()
        check_words('VarianceCovarianceHead', reduction=(reduction, REDUCTIONS), align=(align, ALIGNMENTS))
        self.weights = dict(invariance=invariance_weight, variance=variance_weight, covariance=covariance_weight)
        weights = {f'{name}_weight': weight for name, weight in self.weights.items()}
        check_numbers('VarianceCovarianceHead', target_std=target_std)
        check_numbers('VarianceCovarianceHead', zero=True, eps=eps, **weights)
        self.distance_weight = ('invariance_weight', invariance_weight)
        self.target_std, self.eps, self.reduction, self.align = target_std, eps, reduction, align
        self.engine, self.takes_columns = Engine(precision, layout, transport_dtype), layout != 'rows'

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        z, predicted, target = embeddings.online, embeddings.predicted, embeddings.target
        pairs = compared_pairs(predicted, target, embeddings.pairs, needed=self.weights['invariance'] != 0)
        plain = predicted is z and target is z and self.align == 'pairs'
        distance, variance, covariance = moment_terms(
            z, pairs if plain else [], self.target_std, self.eps,
            covariance='trained' if self.weights['covariance'] else 'value',
            **self.engine.options(z, embeddings.computed_in, embeddings.columns),
        )  # fmt: skip
        if not plain and pairs:
            distance = invariance(predicted, target, pairs, self.align, 'element', embeddings.columns)
        if self.reduction == 'sample':
            distance = distance * embeddings.width
        parts = dict(invariance=distance, variance=variance, covariance=covariance)
        factors = {**self.weights, 'covariance': 2 * self.weights['covariance']}
        losses = {f'loss_{n}': w * (parts[n] if w else parts[n].detach()) for n, w in factors.items()}
        logged = {name: value.detach() for name, value in parts.items()}
        return {**losses, **logged, 'covariance': 2 * logged['covariance']}


@MODELS.register_module()
class CrossCorrelationHead(Head):
    """scale * mean_pairs [ sum_i (C_ii - 1)^2 + off_diagonal_weight * sum_{i != j} C_ij^2 ],  C = x'y / N.

    Zbontar et al., Barlow Twins, ICML 2021. x and y are the two views, each standardised over the rows of all ranks
    (variance with divisor N, ``eps`` inside the square root: batch normalisation without affine parameters).

    The gradient is that of the union batch. The official code sums C over its W processes by an in-place reduction that
    autograd does not see, so its gradient is 1/W of this one: it matters for parameters that LARS does not adapt.

    ``precision``, ``layout``, ``transport_dtype``: see ``VarianceCovarianceHead``.
    """

    takes_columns = True

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
        self.engine, self.takes_columns = Engine(precision, layout, transport_dtype), layout != 'rows'

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        target = None if embeddings.target is embeddings.predicted else embeddings.target
        options = self.engine.options(embeddings.online, embeddings.computed_in, embeddings.columns)
        on_diagonal, off_diagonal = correlation_terms(
            embeddings.predicted, target, embeddings.pairs, self.eps, **options
        )
        weight = self.scale * self.off_diagonal_weight
        return weighted(on_diagonal=(self.scale, on_diagonal), off_diagonal=(weight, off_diagonal))
